/**
 * Documents: small named values that a backend keeps for the library, such as the pauses of queues. `BackendDriver` exports
 * these types.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import type { Batch } from "../BrokerDriver.ts"

/**
 * The place of a document.
 *
 * **Details**
 *
 * The facade checks the bounds of kinds, keys, versions, values and pages, and splits calls that are too large. What is out of
 * bounds fails with a `BackendError` that is not retryable, and does not reach the driver.
 *
 * @category models
 * @since 0.1.0
 */
export interface DocumentKey {
  /** What the documents of a kind have in common: 1 to 32 of `a` to `z` and `-`. */
  readonly kind: string
  /** A text of 1 to 255 characters, without NUL and lone surrogates. Two keys are the same if their bytes are. */
  readonly key: string
}

/**
 * A document.
 *
 * @category models
 * @since 0.1.0
 */
export interface Document extends DocumentKey {
  /** The version of the write that stored it. */
  readonly version: string
  readonly value: string
}

/**
 * A write of a document by compare-and-set.
 *
 * @category models
 * @since 0.1.0
 */
export interface DocumentWrite extends DocumentKey {
  /** The version of the document that it replaces; `undefined`: there is none. */
  readonly expected: string | undefined
  /** The version from now on, which no other write has: 1 to 36 visible ASCII characters. */
  readonly version: string
  /** At most 64 KiB in UTF-8, without NUL and lone surrogates. `undefined`: the document is removed. */
  readonly value: string | undefined
}

/**
 * A page of the documents of a kind.
 *
 * @category models
 * @since 0.1.0
 */
export interface DocumentQuery {
  readonly kind: string
  /** Lists keys that begin with this text alone. Default: all keys. */
  readonly prefix?: string | undefined
  /** The last key of the page before, which has the prefix too. Default: from the first on. */
  readonly after?: string | undefined
  /** 1 to 32. */
  readonly limit: number
}

/**
 * Documents of a backend. A call has at most 32 keys or writes, so that no answer is bounded further.
 *
 * @category models
 * @since 0.1.0
 */
export interface Documents<out E = unknown> {
  /** Reads documents; `undefined` for a key without one. In the caller's transaction, if there is one. */
  readonly get: (keys: Batch<DocumentKey>) => Effect.Effect<ReadonlyArray<Document | undefined>, E>
  /**
   * Writes documents, one after the other, in the caller's transaction, if there is one. Answers whether each was written:
   * `false` where another version was there. A repeated write answers `true`, unless a later one has followed; so does a removal
   * of what is gone already.
   */
  readonly write: (writes: Batch<DocumentWrite>) => Effect.Effect<ReadonlyArray<boolean>, E>
  /** Lists documents of a kind in the order of the bytes of their keys. In the caller's transaction, if there is one. */
  readonly list: (query: DocumentQuery) => Effect.Effect<ReadonlyArray<Document>, E>
}
