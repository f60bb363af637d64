/**
 * Completes a run in the transaction of its caller.
 */
import { Effect } from "effect"
import type { Completion, Settled } from "../../BackendDriver.ts"
import type { BackendParts } from "../backend/SqlBackendDriver.ts"
import type { BrokerParts } from "../broker/SqlBrokerDriver.ts"
import { NoTransaction, type StoreError } from "../Database.ts"

/**
 * Makes the operation: it stores the success of a run and acks its message in the caller's transaction, and notifies
 * after the commit. Fails with `NoTransaction` outside of one.
 */
export const makeComplete =
  ({ db, notifier, settle }: BackendParts, { messages }: BrokerParts) =>
  ({ handle, settlement }: Completion): Effect.Effect<Settled, StoreError | NoTransaction> =>
    Effect.withFiber<Settled, StoreError | NoTransaction>(({ context }) => {
      if (db.transactionOf(context) === undefined) return Effect.fail(new NoTransaction())
      return db.inCallerTransaction(
        Effect.gen(function* () {
          const { answers, changed } = yield* settle([settlement])
          if (handle !== undefined && answers[0] === "Stored") yield* messages.ack([handle])
          yield* notifier.recordChanges(changed)
          yield* db.afterCommit(() => notifier.notify(changed, "end"))
          return answers[0]!
        })
      )
    })
