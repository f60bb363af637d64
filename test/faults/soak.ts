/**
 * Runs a system under random faults for a given time: `npm run soak -- --store redis --minutes 30`.
 *
 * In each round tasks are enqueued while workers are killed, frozen and replaced, networks fail and servers are
 * killed. Then everything is healed, every accepted task has to end, and the round is audited. One worker lives
 * through all rounds: its memory and its handles must not grow once it is warm.
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
