/** Moves a hash slot from one node of a cluster to another, as `redis-cli --cluster reshard` does. */
import { Effect } from "effect"
import type { ServerError } from "../support/ownServers.ts"
import type { Cluster, Reply, Server } from "./server.ts"

/** How a slot moves. */
export interface MoveOptions {
  /** How many keys are moved at once. */
  readonly keysAtOnce: number
  /** Runs when half of the keys are moved. */
  readonly halfway?: Effect.Effect<void> | undefined
}

/** The port of the node that has the slot, by `CLUSTER SLOTS`. */
const portOf = (slots: Reply, slot: number): number => {
  const ranges = slots as ReadonlyArray<
    readonly [first: number, last: number, node: readonly [string, number]]
  >
  return ranges.find(([first, last]) => first <= slot && slot <= last)![2][1]
}

/** Moves the slot of a key to another node, and returns that node. */
export const moveSlot = Effect.fnUntraced(function* (
  { nodes }: Cluster,
  key: string,
  { halfway = Effect.void, keysAtOnce }: MoveOptions
): Effect.fn.Return<Server, ServerError> {
  const slot = String(yield* nodes[0]!.command("CLUSTER", "KEYSLOT", key))
  const port = portOf(yield* nodes[0]!.command("CLUSTER", "SLOTS"), Number(slot))
  const source = nodes.find((node) => node.port === port)!
  const target = nodes.find((node) => node !== source)!
  const idOf = (node: Server) => Effect.map(node.command("CLUSTER", "MYID"), String)
  const targetId = yield* idOf(target)
  const setSlot = (node: Server, ...state: ReadonlyArray<string>) =>
    node.command("CLUSTER", "SETSLOT", slot, ...state)

  yield* setSlot(target, "IMPORTING", yield* idOf(source))
  yield* setSlot(source, "MIGRATING", targetId)
  const half = Number(yield* source.command("CLUSTER", "COUNTKEYSINSLOT", slot)) / 2
  let moved = 0
  for (;;) {
    const keys = (yield* source.command(
      "CLUSTER",
      "GETKEYSINSLOT",
      slot,
      String(keysAtOnce)
    )) as ReadonlyArray<string>
    if (keys.length === 0) break
    yield* source.command("MIGRATE", "127.0.0.1", String(target.port), "", "0", "5000", "KEYS", ...keys)
    if (moved < half && moved + keys.length >= half) yield* halfway
    moved += keys.length
  }
  for (const node of [target, source, ...nodes]) yield* setSlot(node, "NODE", targetId)
  return target
})
