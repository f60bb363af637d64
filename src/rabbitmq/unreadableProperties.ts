/**
 * Delivers messages without their properties where amqplib cannot decode these.
 *
 * amqplib decodes headers recursively, and the server takes headers that are nested more deeply than that can go. amqplib
 * closes a connection when it cannot decode a frame, and the server would deliver the message again over the next one, for
 * ever.
 */
import type { ChannelModel } from "amqplib"

/** What amqplib reads frames with: the bytes that are left, and the function that takes the first frame of them. */
interface FrameReader {
  readonly rest: Buffer
  recvFrame: () => unknown
}

/** The type of a content header frame. */
const CONTENT_HEADER = 2
/** Bytes of a frame before and behind its payload: type, channel and size, and an end mark. */
const BEFORE_PAYLOAD = 7
const BEHIND_PAYLOAD = 1

/** Decodes a content header without its properties; `undefined` if the bytes do not begin with a whole one. */
const readContentHeader = (bytes: Buffer) =>
  bytes.length >= BEFORE_PAYLOAD &&
  bytes[0] === CONTENT_HEADER &&
  bytes.length >= BEFORE_PAYLOAD + bytes.readUInt32BE(3) + BEHIND_PAYLOAD
    ? {
        id: bytes.readUInt16BE(7),
        channel: bytes.readUInt16BE(1),
        size: Number(bytes.readBigUInt64BE(11)),
        fields: { headers: {} }
      }
    : undefined

/** Makes a connection deliver a message without its properties where they cannot be decoded. */
export const dropUnreadableProperties = ({ connection }: Pick<ChannelModel, "connection">): void => {
  const reader = connection as unknown as FrameReader
  const recvFrame = reader.recvFrame.bind(reader)
  reader.recvFrame = () => {
    const { rest } = reader
    try {
      return recvFrame()
    } catch (error) {
      // amqplib takes a frame before it decodes it; one that is damaged it does not take
      const header = reader.rest === rest ? undefined : readContentHeader(rest)
      if (header === undefined) throw error
      return header
    }
  }
}
