/**
 * Drops the bodies of oversized messages as they arrive.
 *
 * The server announces the size of a body in the frame before it. amqplib would collect the body of any announced size, and
 * a body that exceeds the memory of a worker would end one worker after the other.
 */
import type { Channel, Message } from "amqplib"
import { maxMessageBytes } from "../internal/driver/maxMessageBytes.ts"

/** A frame as amqplib decodes it. A body frame has no id. */
interface Frame {
  readonly id?: number | undefined
  /** Of a content header: the bytes of the body. */
  readonly size?: number | undefined
  /** Of a content header: the properties of the message, which become those of its `Message`. */
  readonly fields?: object | undefined
  /** Of a body frame: a part of the body. */
  readonly content?: Uint8Array | undefined
}

/** What amqplib calls with each frame of a channel. It replaces the function when the channel closes. */
interface FrameAcceptor {
  accept: (frame: Frame) => void
}

/** The id of a content header: the class `basic` of AMQP. */
const CONTENT_HEADER = 60

/** The announced sizes of oversized messages, by their properties. */
const announcedBytes = new WeakMap<object, number>()

/** Returns the announced size of a message whose body was dropped; `undefined` for any other message. */
export const droppedBytesOf = ({ properties }: Pick<Message, "properties">): number | undefined =>
  announcedBytes.get(properties)

/**
 * Makes a channel drop the bodies of messages with more than `limit` bytes. It hands such a message on with an empty body,
 * once all frames of it have arrived.
 */
export const dropOversizedBodies = (channel: Channel, limit = maxMessageBytes): void => {
  const acceptor = channel as unknown as FrameAcceptor
  const accept = acceptor.accept.bind(channel)
  /** The content header of the message whose body is being dropped, and the bytes that are still to come. */
  let header: Frame | undefined
  let remaining = 0
  acceptor.accept = (frame) => {
    if (header !== undefined && frame.content !== undefined) {
      remaining -= frame.content.length
      if (remaining > 0) return
      const emptied = { ...header, size: 0 }
      header = undefined
      accept(emptied)
      return
    }
    const { fields, id, size = 0 } = frame
    if (id !== CONTENT_HEADER || fields === undefined || size <= limit) {
      accept(frame)
      return
    }
    announcedBytes.set(fields, size)
    header = frame
    remaining = size
  }
}
