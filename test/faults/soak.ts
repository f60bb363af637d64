/**
 * A system that runs for as long as it is told while anything breaks that may: `npm run soak -- --store redis --minutes 30`.
 *
 * It goes on in rounds. In each one tasks are enqueued while workers are killed, frozen and replaced, networks fail and
 * servers are killed; then all is healed, all that was accepted has to come to its end, and accounts are drawn up. One worker
 * lives through all of it: what it holds in memory, and how many handles, must not grow once it is warm.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect, Logger, Option, Random } from "effect"
import { Command, Flag } from "effect/cli"
import * as Audit from "./audit.ts"
import * as Growth from "./growth.ts"
import * as OwnStores from "./ownStores.ts"
import * as Soaking from "./soaking.ts"

const stores: Record<string, OwnStores.OwnStore> = {
  sqlite: OwnStores.sqlite,
  redis: OwnStores.redis(),
  postgres: OwnStores.postgres(),
  mariadb: OwnStores.mariadb(),
  "rabbitmq-sqlite": OwnStores.rabbitmqWithSqlite,
  "rabbitmq-redis": OwnStores.rabbitmqWithRedis()
}

const soak = Command.make(
  "soak",
  {
    store: Flag.Literals("store", Object.keys(stores)),
    minutes: Flag.Finite("minutes").pipe(Flag.withDefault(30)),
    seed: Flag.Int("seed").pipe(
      Flag.withDescription("Of the faults, to have the same ones again"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ minutes, seed: given, store: name }) {
    const seed = Option.getOrElse(given, () => Math.floor(Math.random() * 1_000_000))
    yield* Effect.log(`${name}, ${minutes} minutes, --seed ${seed}`)
    const { rounds, samples } = yield* Soaking.run(stores[name]!, minutes * 60_000, console.log).pipe(
      Effect.scoped,
      Random.withSeed(seed),
      // the warnings of lost connections are expected
      Effect.provide(Logger.layer([]))
    )
    const total = Audit.sum(rounds)
    console.log(
      Audit.table(name, [...rounds.map((one, i) => [`round ${i + 1}`, one] as const), ["in all", total]])
    )
    console.log(Growth.table(samples))
    const wrong = [...Audit.findingsOf({ ...total, reruns: 0 }), ...Growth.findingsOf(samples)]
    if (wrong.length > 0) return yield* Effect.fail(new Error(wrong.join("; ")))
  })
)

Command.run(soak, { version: "0" }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
