/**
 * The limit of a message's body, which is the same in all stores.
 *
 * A producer of this library writes no larger body, so a larger one comes from another program, and no worker should
 * load it. RabbitMQ refuses it by its announced size, before a worker buffers it (`src/rabbitmq`); Redis and SQL return
 * the message without its body (`src/redis`, `src/sql`). The worker makes a dead letter of it, without the body.
 */
import * as defaults from "../defaults.ts"

/**
 * Bytes of a message besides its payload, at most. The names in it have at most 255 characters each, and a character of
 * JSON text has at most 6 bytes, so the true size stays below a tenth of this.
 */
export const ENVELOPE_BYTES = 64 * 1024

/** Bytes of an encoded message, at most. A message whose body has more bytes is oversized. */
export const maxMessageBytes = defaults.maxBytes + ENVELOPE_BYTES

/** Returns why an oversized message becomes a dead letter. */
export const oversizedIssue = (bytes: number): string =>
  `the message has ${bytes} bytes, and a message has at most ${maxMessageBytes}; its body is not kept`
