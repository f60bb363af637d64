/** Calls for claimed messages, which their handles lead to. Encoding, Lua and decoding. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import * as ClaimHandle from "../../ClaimHandle.ts"
import type { Script } from "../../Script.ts"
import { encodeGroups } from "../../scriptArguments.ts"
import type { ScriptRunner } from "../../ScriptRunner.ts"

/** Lua: reads a group of `runForHandles`: a queue, and the members of its claims. */
export const readMembersLua = /* lua */ `
local function readMembers()
  local queue, members = nextText(), {}
  for i = 1, nextNumber() do members[i] = nextText() end
  return queue, members
end
`

/**
 * Lua: removes a claim from the queue's sets, and returns whether it was held. After its lease is over it may lie among
 * the ready. Needs `queuesLua`.
 */
export const removeClaimLua = /* lua */ `
local function removeClaim(claimed, queue, member)
  return redis.call('ZREM', claimed, member) == 1 or redis.call('ZREM', queueKey(queue, 'ready'), member) == 1
end
`

const encodeMembers = (handles: ReadonlyArray<ClaimHandle.ClaimHandle>): ReadonlyArray<string> =>
  encodeGroups(
    handles,
    ({ queue }) => [queue],
    (args, { member }) => args.push(member)
  )

/**
 * Runs a script for handles, and returns whether each claim was held. The script returns one digit for each, in the order
 * of its arguments: the given head, and groups of a queue and its members. Handles of another store are not held.
 */
export const runForHandles = (
  { keyspace, run }: ScriptRunner,
  script: Script<string>,
  handles: ReadonlyArray<string>,
  head: ReadonlyArray<string> = []
): Effect.Effect<ReadonlyArray<boolean>, RedisError> => {
  const decoded = handles.map((handle) => ClaimHandle.decode(handle, keyspace.shards))
  const groups = Map.groupBy(
    decoded.filter((handle) => handle !== undefined),
    ({ shard }) => shard
  )
  const held = new Set<ClaimHandle.ClaimHandle>()
  return Effect.as(
    Effect.forEach(
      groups,
      ([shard, some]) =>
        Effect.map(run(script, shard, [...head, ...encodeMembers(some)]), (digits) =>
          some.forEach((handle, i) => digits[i] === "1" && held.add(handle))
        ),
      { concurrency: "unbounded", discard: true }
    ),
    decoded
  ).pipe(Effect.map((all) => all.map((handle) => handle !== undefined && held.has(handle))))
}

/** Runs a script for items that have a handle. Those whose handle is of another store are passed over. */
export const runForItems = <In extends { readonly handle: string }>(
  { keyspace, run }: ScriptRunner,
  script: Script<null>,
  items: ReadonlyArray<In>,
  encode: (item: In, handle: ClaimHandle.ClaimHandle) => ReadonlyArray<string>
): Effect.Effect<void, RedisError> => {
  const groups = new Map<number, Array<string>>()
  for (const item of items) {
    const handle = ClaimHandle.decode(item.handle, keyspace.shards)
    if (handle === undefined) continue
    const args = groups.get(handle.shard)
    if (args === undefined) groups.set(handle.shard, [...encode(item, handle)])
    else args.push(...encode(item, handle))
  }
  return Effect.forEach(groups, ([shard, args]) => run(script, shard, args), {
    concurrency: "unbounded",
    discard: true
  })
}
