/**
 * The holder of an idempotency key that may lie in another shard than its task: a claim, a blank, and a task id.
 *
 * Every attempt to create a record makes a claim of its own, which the entry of the key and the record both name. The record
 * holds the key as long as they do. So what is left of one claim, such as a late release of the key, does nothing to another
 * one, also where the id and its incarnation are the same.
 */
import { randomUUID } from "node:crypto"

/** A holder. */
export interface KeyHolder {
  readonly claim: string
  readonly id: string
}

/** Makes a claim: 12 digits and small letters. */
export const makeClaim = (): string => randomUUID().slice(24)

/** Encodes a holder. */
export const encode = ({ claim, id }: KeyHolder): string => `${claim} ${id}`

/** Decodes a holder; returns `undefined` for a text that the store did not write. */
export const decode = (text: string): KeyHolder | undefined =>
  /^[0-9a-f]{12} /.test(text) ? { claim: text.slice(0, 12), id: text.slice(13) } : undefined
