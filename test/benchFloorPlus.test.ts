/** The systems that the benchmark takes as a yardstick keep the promises that they are said to keep. */
import { assert, it } from "@effect/vitest"
import type { ClaimedTask, FloorPlusStore } from "../bench/floorPlus.ts"
import { stores } from "../bench/stores.ts"
import { openStore as openMariadb } from "../bench/systems/mariadb-floor-plus.ts"
import { openStore as openPostgres } from "../bench/systems/postgres-floor-plus.ts"
import { openStore as openRabbitmq } from "../bench/systems/rabbitmq-floor-plus.ts"
import { openStore as openRedis } from "../bench/systems/redis-floor-plus.ts"
import { openStore as openSqlite } from "../bench/systems/sqlite-floor-plus.ts"
import { describeWithMariadb } from "./mariadb/server.ts"
import { describeWithPostgres } from "./postgres/server.ts"
import { describeWithRabbit } from "./rabbitmq/server.ts"
import { describeWithRedis } from "./redis/server.ts"
import { describeUnless } from "./support/describeUnless.ts"

const HOUR = 3_600_000
/** The lease of claims that are to lapse. A store may take LOOK to notice that. */
const SHORT = 1500
const LOOK = 1100
const newTask = (id: string) => ({ id, body: JSON.stringify({ value: id }) })

/** Runs `use` with a store on a new location, which is removed afterwards. */
const withStore = async <Task extends ClaimedTask>(
  storeName: string,
  open: (location: string) => FloorPlusStore<Task> | Promise<FloorPlusStore<Task>>,
  use: (store: FloorPlusStore<Task>, messageCame: () => Promise<void>) => Promise<void>
) => {
  const place = await stores[storeName]!.makePlace()
  const store = await open(place.location)
  let waiting: Array<() => void> = []
  const ignoreMessages = await store.onMessages(() => {
    for (const resolve of waiting) resolve()
    waiting = []
  }, 10)
  await use(store, () => {
    const came = new Promise<void>((resolve) => waiting.push(resolve))
    return Promise.race([came, new Promise<void>((resolve) => setTimeout(resolve, 50))])
  })
  await ignoreMessages()
  await store.close()
  await place.remove()
}

/** Claims until there are `count` tasks. */
const claim = async <Task extends ClaimedTask>(
  store: FloorPlusStore<Task>,
  messageCame: () => Promise<void>,
  count: number,
  leaseMillis: number
): Promise<ReadonlyArray<Task>> => {
  const claimed: Array<Task> = []
  while (claimed.length < count) {
    const came = messageCame()
    const more = await store.claim(10, leaseMillis)
    claimed.push(...more)
    if (more.length === 0) await came
  }
  return claimed
}

const register = <Task extends ClaimedTask>(
  storeName: string,
  open: (location: string) => FloorPlusStore<Task> | Promise<FloorPlusStore<Task>>,
  lapses: boolean
) => {
  it("enqueues an id once", () =>
    withStore(storeName, open, async (store, messageCame) => {
      await store.enqueue([newTask("a")])
      await store.enqueue([newTask("a"), newTask("b")])
      const claimed = await claim(store, messageCame, 2, HOUR)
      assert.deepStrictEqual(
        claimed.map(({ body, id }) => ({ body, id })),
        [newTask("a"), newTask("b")].map(({ body, id }) => ({ body, id }))
      )
      assert.deepStrictEqual(await store.claim(10, HOUR), [])
    }))

  it("stores the result of the run that holds the task alone, and once", () =>
    withStore(storeName, open, async (store, messageCame) => {
      await store.enqueue([newTask("a"), newTask("b")])
      const [a, b] = await claim(store, messageCame, 2, HOUR)
      assert.isDefined(a)
      assert.isDefined(b)
      assert.strictEqual(await store.settle([{ task: { ...a, token: "another" }, result: "0" }]), 0)
      assert.strictEqual(await store.settle([{ task: a, result: "1" }]), 1)
      assert.strictEqual(await store.settle([{ task: a, result: "2" }]), 0)
      assert.deepStrictEqual(await store.read(["a", "b", "c"]), [["a", "1"]])
      await store.enqueue([newTask("a")])
      assert.deepStrictEqual(await store.claim(10, HOUR), [])
      assert.strictEqual(await store.settle([{ task: b, result: "3" }]), 1)
    }))

  if (!lapses) return

  it("runs again what is not settled when the lease is over, and nothing else of the claim", () =>
    withStore(storeName, open, async (store, messageCame) => {
      await store.enqueue([newTask("a"), newTask("b")])
      const [a, b] = await claim(store, messageCame, 2, SHORT)
      assert.isDefined(a)
      assert.isDefined(b)
      assert.strictEqual(await store.settle([{ task: a, result: "1" }]), 1)
      const [again] = await claim(store, messageCame, 1, HOUR)
      assert.isDefined(again)
      assert.strictEqual(again.id, "b")
      assert.strictEqual(await store.settle([{ task: b, result: "2" }]), 0)
      assert.strictEqual(await store.settle([{ task: again, result: "3" }]), 1)
      const results = new Map(await store.read(["a", "b"]))
      assert.deepStrictEqual(
        results,
        new Map([
          ["a", "1"],
          ["b", "3"]
        ])
      )
    }))

  it("renews leases", () =>
    withStore(storeName, open, async (store, messageCame) => {
      await store.enqueue([newTask("a")])
      const [a] = await claim(store, messageCame, 1, SHORT)
      assert.isDefined(a)
      await store.renew([a.token], HOUR)
      await new Promise((resolve) => setTimeout(resolve, SHORT + LOOK))
      assert.deepStrictEqual(await store.claim(10, HOUR), [])
      assert.strictEqual(await store.settle([{ task: a, result: "1" }]), 1)
    }))
}

describeUnless(undefined, "the floor+ of SQLite", () => register("sqlite", openSqlite, true))
await describeWithPostgres("the floor+ of PostgreSQL", () => register("postgres", openPostgres, true))
await describeWithMariadb("the floor+ of MariaDB", () => register("mariadb", openMariadb, true))
await describeWithRedis("the floor+ of Redis", () => register("redis", openRedis, true))
// a message comes again when the connection of its worker is lost
await describeWithRabbit("the floor+ of RabbitMQ", () => register("rabbitmq", openRabbitmq, false))
