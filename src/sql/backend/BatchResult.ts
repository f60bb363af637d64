/** Operations that change records: what they answer, and which records they changed. */
import { Effect } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import { type Numbered, rounds, type StoreError } from "../Database.ts"

/** Answers, and the ids whose state or progress changed. */
export interface Changed<A> {
  readonly answers: ReadonlyArray<A>
  readonly changed: ReadonlyArray<string>
  /** Those that ended, of an operation that otherwise ends nothing. */
  readonly ended?: ReadonlyArray<string> | undefined
}

/** One round of a batch, in which every id is there once: it fills in the answers, and adds what it changed. */
export type Round<Item, A> = (
  items: ReadonlyArray<Numbered<Item>>,
  answers: Array<A>,
  changed: Array<string>
) => Effect.Effect<void, StoreError>

/** An operation on batches, round by round. */
export const inRounds =
  <Item extends { readonly id: string }, A>(round: Round<Item, A>) =>
  (batch: Batch<Item>): Effect.Effect<Changed<A>, StoreError> =>
    Effect.suspend(() => {
      const answers: Array<A> = []
      const changed: Array<string> = []
      return Effect.as(
        Effect.forEach(
          rounds(batch, (item) => item.id),
          (items) => round(items, answers, changed),
          { discard: true }
        ),
        { answers, changed }
      )
    })
