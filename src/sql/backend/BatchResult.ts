import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import { distinctBatches, type Indexed } from "../distinctBatches.ts"

/** The result of an operation on a batch of tasks. */
export interface BatchResult<A> {
  /** The answers, in the order of the batch. */
  readonly answers: ReadonlyArray<A>
  /** The ids of the tasks whose state or progress changed. */
  readonly changed: ReadonlyArray<string>
  /** The ids of the tasks that ended, where the operation otherwise ends none. */
  readonly ended?: ReadonlyArray<string> | undefined
}

/** Applies a batch in which every id occurs once: sets the answers by index, and adds the ids that it changed. */
export type DistinctBatchOperation<Item, A> = (
  items: ReadonlyArray<Indexed<Item>>,
  answers: Array<A>,
  changed: Array<string>
) => Effect.Effect<void, StoreError>

/** Applies an operation to any batch: items with the same id are applied one after the other. */
export const byDistinctBatches =
  <Item extends { readonly id: string }, A>(operation: DistinctBatchOperation<Item, A>) =>
  (batch: Batch<Item>): Effect.Effect<BatchResult<A>, StoreError> =>
    Effect.suspend(() => {
      const answers: Array<A> = []
      const changed: Array<string> = []
      return Effect.as(
        Effect.forEach(
          distinctBatches(batch, (item) => item.id),
          (items) => operation(items, answers, changed),
          { discard: true }
        ),
        { answers, changed }
      )
    })
