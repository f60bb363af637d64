/** Whether a fiber is in a transaction of some `SqlClient`. */
import { Context } from "effect"

/** Under this key `effect/sql` keeps the key of the innermost transaction's own service. */
const CurrentTransaction = Context.Reference<Context.Key<never, object> | undefined>(
  "effect/sql/CurrentTransactionService",
  { defaultValue: () => undefined }
)

/** Whether a transaction is open, and not hidden. */
export const isInTransaction = (context: Context.Context<never>): boolean => {
  const key = Context.get(context, CurrentTransaction)
  return key !== undefined && Context.getOrUndefined(context, key) !== undefined
}
