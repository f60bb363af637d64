/** A claim: where its message lies. The text of it is the handle. */
export interface ClaimHandle {
  readonly handle: string
  readonly shard: number
  readonly queue: string
  readonly member: string
}

/** The handle of a claim. */
export const encode = (shard: number, member: string, queue: string): string => `${shard}/${member}/${queue}`

/** The claim of a handle; `undefined` for a text that is none of this store's handles. */
export const decode = (handle: string, shards: number): ClaimHandle | undefined => {
  const first = handle.indexOf("/")
  const second = handle.indexOf("/", first + 1)
  const shard = Number(handle.slice(0, first))
  if (first < 1 || second < 0 || !(shard < shards)) return undefined
  return { handle, shard, member: handle.slice(first + 1, second), queue: handle.slice(second + 1) }
}
