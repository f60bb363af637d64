/**
 * The names of queues, exchanges and routing keys on the server. They are wire format: all processes of a prefix share
 * them.
 */
import * as delayQueues from "./delayQueues.ts"

/** Encodes a queue's name as one word of a routing key: percent-encoded, with nothing that topics treat as special. */
export const encodeWord = (name: string): string =>
  encodeURIComponent(name.toWellFormed()).replaceAll(
    /[.!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`
  )

/** The names under one prefix. */
export class Names {
  readonly prefix: string

  constructor(prefix: string) {
    this.prefix = encodeWord(prefix)
  }

  /** The queue of messages that are due. */
  queue(queue: string): string {
    return `${this.prefix}.${encodeWord(queue)}`
  }

  /** The queue of rejected messages. */
  rejectedQueue(queue: string): string {
    return `${this.queue(queue)}.rejected`
  }

  /** The queue in which messages wait for 2^exponent milliseconds. */
  delayQueue(queue: string, exponent: number): string {
    return `${this.queue(queue)}.delay.${exponent}`
  }

  /** The exchange that routes to the delay queue of an exponent, or past it; below the lowest, to the queues of due messages. */
  delayExchange(exponent: number): string {
    return exponent < delayQueues.LOWEST_EXPONENT ? `${this.prefix}.due` : `${this.prefix}.delay.${exponent}`
  }

  /** The exchange with one binding (a mark) for each delay queue that is declared. */
  get marksExchange(): string {
    return `${this.prefix}.delay.marks`
  }

  /** The queue of length 0 to which all marks are bound: it drops the messages that probe for a mark. */
  get discardQueue(): string {
    return `${this.prefix}.delay.nowhere`
  }
}

/** The routing key of the mark of a delay queue. */
export const markRoutingKey = (queue: string, exponent: number): string => `${exponent}.${encodeWord(queue)}`

/** The routing key of a message with that rounded delay. */
export const delayRoutingKey = (rounded: number, queue: string): string =>
  delayQueues.routingKey(rounded, encodeWord(queue))
