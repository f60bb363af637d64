/** Frames of a server that closes a connection as soon as it is ready. */

/** `confirm.select-ok`: the last frame of a client's handshake. */
const READY = Buffer.from([0, 85, 0, 11])

const TEXT = Buffer.from("CONNECTION_FORCED - cut")

/** The frame of `connection.close`. */
const close = (() => {
  const method = Buffer.concat([
    Buffer.from([0, 10, 0, 50, 320 >> 8, 320 & 255, TEXT.length]),
    TEXT,
    Buffer.from([0, 0, 0, 0])
  ])
  const head = Buffer.alloc(7)
  head.writeUInt8(1, 0)
  head.writeUInt32BE(method.length, 3)
  return Buffer.concat([head, method, Buffer.from([0xce])])
})()

/** Returns the server's bytes followed by `connection.close`, if they complete the handshake. */
export const closing = (received: Buffer): Buffer | undefined =>
  received.includes(READY) ? Buffer.concat([received, close]) : undefined
