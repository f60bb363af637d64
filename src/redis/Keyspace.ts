/**
 * Where the keys of a store lie.
 *
 * Every key of a task begins with the hash tag of its shard, `{<prefix>:<shard>}`, so that on Redis Cluster all of
 * them share one slot and one script reaches them. Which shard a task has follows from its id alone, in every
 * process: the number of shards is part of the wire format.
 */

/** The keys of a store. */
export interface Keyspace {
  readonly prefix: string
  readonly shards: number
  /** The shard of a task id, or of any other text. */
  readonly shardOf: (id: string) => number
  /** What every key of a shard begins with. */
  readonly base: (shard: number) => string
  /** The channel of a process. */
  readonly channel: (process: string) => string
}

/** How a store is laid out. Every process has to say the same. */
export interface Options {
  /** Begins every key. Any text without braces. Default `chicory`. */
  readonly prefix?: string | undefined
  /**
   * Over how many hash slots tasks are spread, 1 to 1024. Default 1, which is right for every server that is no
   * cluster. Order and priorities hold within a shard.
   */
  readonly shards?: number | undefined
}

/** 32-bit FNV-1a over the UTF-8 bytes. */
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193)
  return value >>> 0
}

/** Options out of range are a programmer's error: they throw. */
export const make = ({ prefix = "chicory", shards = 1 }: Options): Keyspace => {
  if (prefix === "" || /[{}]/.test(prefix)) {
    throw new RangeError(`prefix: a text without braces, at least one character, not "${prefix}"`)
  }
  if (!Number.isInteger(shards) || shards < 1 || shards > 1024) {
    throw new RangeError(`shards: a whole number from 1 to 1024, not ${shards}`)
  }
  const bases = Array.from({ length: shards }, (_, shard) => `{${prefix}:${shard}}`)
  return {
    prefix,
    shards,
    shardOf: shards === 1 ? () => 0 : (id) => hash(id) % shards,
    base: (shard) => bases[shard]!,
    channel: (process) => `${prefix}:process:${process}`
  }
}

/** A dead letter lies in the shard of its task, whose id is in front of the generation. */
export const taskIdOfLetter = (letterId: string): string => letterId.replace(/:\d+$/, "")
