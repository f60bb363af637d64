/**
 * The handle of a claimed message: `<shard>/<member>/<queue>`.
 *
 * The member is that of the queue's `:claimed` set. It ends with the id of the claim, so a message that is claimed again
 * has another handle.
 */

/** A decoded handle. */
export interface ClaimHandle {
  /** The text that was decoded. */
  readonly handle: string
  readonly shard: number
  readonly queue: string
  readonly member: string
}

/** Encodes a handle. */
export const encode = (shard: number, member: string, queue: string): string => `${shard}/${member}/${queue}`

/** Decodes a handle; returns `undefined` for a text that is no handle of a store with that many shards. */
export const decode = (handle: string, shards: number): ClaimHandle | undefined => {
  const first = handle.indexOf("/")
  const second = handle.indexOf("/", first + 1)
  const shard = Number(handle.slice(0, first))
  if (first < 1 || second < 0 || !(shard < shards)) return undefined
  return { handle, shard, member: handle.slice(first + 1, second), queue: handle.slice(second + 1) }
}
