import { AsyncResult, Task, Worker } from "chicory"
import { SqlStore } from "chicory/sql"
import { SqliteClient } from "chicory/sqlite"
import { Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { item: Schema.String }) {}

const Confirm = Task.make("mail.confirm", { payload: { order: Schema.Int, to: Schema.String } })
const Invoice = Task.make("invoice.book", { payload: { order: Schema.Int }, success: Schema.Int })

/** Writes the order, takes the item from the stock and enqueues the mail: all of it, or nothing. */
const placeOrder = Effect.fn("placeOrder")(function* (item: string, to: string) {
  const sql = yield* SqlClient.SqlClient
  return yield* sql.withTransaction(
    Effect.gen(function* () {
      const [order] = yield* sql<{ id: number }>`INSERT INTO orders (item) VALUES (${item}) RETURNING id`
      yield* Confirm.send({ order: order!.id, to })
      const left =
        yield* sql`UPDATE stock SET left = left - 1 WHERE item = ${item} AND left > 0 RETURNING left`
      // the order rolls back, and with it the mail that is enqueued already
      if (left.length === 0) return yield* new OutOfStock({ item })
      return order!.id
    })
  )
})

const ConfirmLive = Confirm.toLayer(({ order, to }) => Effect.log(`To ${to}: order ${order} is on its way`))

/** The row and the end of the task are one commit, so an order has one invoice, however often a worker dies. */
const InvoiceLive = Invoice.toLayer(({ order }) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    return yield* SqlStore.transact(
      Effect.gen(function* () {
        const [row] = yield* sql<{
          number: number
        }>`INSERT INTO invoices (order_id) VALUES (${order}) RETURNING number`
        return row!.number
      })
    )
  }).pipe(Effect.orDie)
)

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)`
  yield* sql`CREATE TABLE stock (item TEXT PRIMARY KEY, left INTEGER NOT NULL)`
  yield* sql`CREATE TABLE invoices (number INTEGER PRIMARY KEY, order_id INTEGER NOT NULL)`
  yield* sql`INSERT INTO stock VALUES ('chili', 1)`

  const order = yield* placeOrder("chili", "ada@example.org")
  const refused = yield* Effect.flip(placeOrder("chili", "bob@example.org"))
  yield* Effect.log(`Bob's order: ${refused._tag}`)

  const invoice = yield* AsyncResult.get(yield* Invoice.delay({ order }), { timeout: "5 seconds" })
  yield* Effect.log(`order ${order} has invoice ${invoice}`)
})

const DatabaseLive = SqliteClient.layer({ filename: "shop.db" })
const StoreLive = SqlStore.layer().pipe(Layer.provideMerge(DatabaseLive))
const WorkerLive = Worker.layer([Confirm, Invoice]).pipe(Layer.provide([ConfirmLive, InvoiceLive]))

await program.pipe(Effect.provide(WorkerLive.pipe(Layer.provideMerge(StoreLive))), Effect.runPromise)
