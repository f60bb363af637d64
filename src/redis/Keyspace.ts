/**
 * The keys of a store and the shards over which they are spread.
 *
 * Every key of a task begins with the hash tag of its shard, `{<prefix>:<shard>}`, so that on Redis Cluster all of them
 * lie in one slot, where one script reaches them. The shard of a task follows from its id alone, in every process: the
 * number of shards is part of the wire format.
 */
import { matchingText, wholeNumber } from "../internal/options.ts"

/** The greatest number of shards. */
export const MAX_SHARDS = 1024

/** The keys of a store. */
export interface Keyspace {
  readonly prefix: string
  readonly shards: number
  /** The shard of a task id, or of any other text. */
  readonly shardOf: (id: string) => number
  /** The prefix of every key of a shard. */
  readonly base: (shard: number) => string
  /** The keys that every script of a shard declares: the prefix and another one. Neither exists: see `Script`. */
  readonly declaredKeys: (shard: number) => readonly [base: string, second: string]
  /** The channel of a process. */
  readonly channel: (process: string) => string
}

/**
 * The layout of a store. Every process has to use the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Prefix of every key: any text without braces. Default `chicory`. */
  readonly prefix?: string | undefined
  /**
   * Number of hash slots over which tasks are spread, 1 to 1024. Default 1, which suits every server that is not a
   * cluster. Order and priorities hold within a shard. It cannot be changed while tasks are stored.
   */
  readonly shards?: number | undefined
}

/** Returns the 32-bit FNV-1a hash of the UTF-8 bytes. */
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193)
  return value >>> 0
}

/** Makes the keys of a store. Throws a `RangeError` for options out of range, which are a programming error. */
export const make = (options: Options): Keyspace => {
  const prefix = matchingText(
    "prefix",
    options.prefix ?? "chicory",
    /^[^{}]+$/,
    "a text without braces of at least one character"
  )
  const shards = wholeNumber("shards", options.shards ?? 1, 1, MAX_SHARDS)
  const bases = Array.from({ length: shards }, (_, shard) => `{${prefix}:${shard}}`)
  const declaredKeys = bases.map((base) => [base, `${base}:none`] as const)
  return {
    prefix,
    shards,
    shardOf: shards === 1 ? () => 0 : (id) => hash(id) % shards,
    base: (shard) => bases[shard]!,
    declaredKeys: (shard) => declaredKeys[shard]!,
    channel: (process) => `${prefix}:process:${process}`
  }
}
