/**
 * The error of a call to the server, and whether it is permanent. It holds nothing of the URL, which may contain a
 * password.
 */
import { Data } from "effect"

/** A call to the server, or the connection to it, failed. */
export class RabbitError extends Data.TaggedError("RabbitError")<{
  readonly message: string
  /** The AMQP reply code, where the server gave one. */
  readonly code?: number | undefined
  /** A failure that this library detects: a publish that was not confirmed or not routed, or an impossible queue name. */
  readonly kind?: "not confirmed" | "unroutable" | "bad name" | undefined
  readonly cause?: unknown
}> {}

/** Converts what amqplib throws. */
export const fromUnknown = (cause: unknown): RabbitError => {
  if (cause instanceof RabbitError) return cause
  const message = cause instanceof Error ? cause.message : String(cause)
  return new RabbitError({ message, code: replyCodeOf(cause, message), cause })
}

/** A refused handshake carries its reply code in the message only. */
const replyCodeOf = (cause: unknown, message: string): number | undefined => {
  const { code } = cause as { readonly code?: unknown }
  if (typeof code === "number") return code
  const found = /\b([345]\d\d) \([A-Z]+[-_][A-Z_-]+\)/.exec(message)
  return found === null ? undefined : Number(found[1])
}

/** A queue or exchange is missing. It closes the channel of the call. */
export const NOT_FOUND = 404
const PRECONDITION_FAILED = 406

/** What the server says of a message that is too large, as it closes the channel. */
const TOO_LARGE = /message size \d+ is larger than (?:configured )?max size (\d+)/

/** Returns the server's `max_message_size` where a message that exceeds it has closed the channel. */
export const maxMessageSizeOf = ({ message }: RabbitError): number | undefined => {
  const found = TOO_LARGE.exec(message)
  return found === null ? undefined : Number(found[1])
}

/** Makes the error of a message that exceeds the server's `max_message_size`. */
export const messageTooLarge = (bytes: number, max: number): RabbitError =>
  new RabbitError({
    message: `a message has ${bytes} bytes, and the server's max_message_size is ${max}`,
    code: PRECONDITION_FAILED
  })

/** INVALID-PATH, ACCESS-REFUSED, PRECONDITION-FAILED, NOT-ALLOWED. */
const PERMANENT_CODES: ReadonlySet<number | undefined> = new Set([402, 403, PRECONDITION_FAILED, 530])
/**
 * NOT-ALLOWED is also the code for a reached limit of connections or channels, which may be free again later, and
 * PRECONDITION-FAILED the code for a claim that is over, which closes the channel: the next one is opened with new claims.
 */
const TRANSIENT_MESSAGE = /limit|unknown delivery tag|delivery acknowledgement/

/**
 * Tells whether a retry cannot help: a wrong password, a missing virtual host, a queue of that name with other
 * arguments, a message that is too large.
 */
export const isPermanent = (error: unknown): boolean =>
  error instanceof RabbitError &&
  (error.kind === "bad name" || (PERMANENT_CODES.has(error.code) && !TRANSIENT_MESSAGE.test(error.message)))
