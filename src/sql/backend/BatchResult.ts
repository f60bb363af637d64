/** Operations that change records: what they answer, and which records they changed. */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import { type Indexed, distinctBatches, type StoreError } from "../Database.ts"

/** Answers, and the ids whose state or progress changed. */
export interface BatchResult<A> {
  readonly answers: ReadonlyArray<A>
  readonly changed: ReadonlyArray<string>
  /** Those that ended, of an operation that otherwise ends nothing. */
  readonly ended?: ReadonlyArray<string> | undefined
}

/** One round of a batch, in which every id is there once: it fills in the answers, and adds what it changed. */
export type DistinctBatchOperation<Item, A> = (
  items: ReadonlyArray<Indexed<Item>>,
  answers: Array<A>,
  changed: Array<string>
) => Effect.Effect<void, StoreError>

/** An operation on batches, round by round. */
export const byDistinctBatches =
  <Item extends { readonly id: string }, A>(round: DistinctBatchOperation<Item, A>) =>
  (batch: Batch<Item>): Effect.Effect<BatchResult<A>, StoreError> =>
    Effect.suspend(() => {
      const answers: Array<A> = []
      const changed: Array<string> = []
      return Effect.as(
        Effect.forEach(
          distinctBatches(batch, (item) => item.id),
          (items) => round(items, answers, changed),
          { discard: true }
        ),
        { answers, changed }
      )
    })
