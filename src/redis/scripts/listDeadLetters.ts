/** Lists dead letters, newest first. */
import { Array as Arr, Effect } from "effect"
import type { BackendDriver, DeadLetter } from "../../BackendDriver.ts"
import { payloadInvalidExit } from "../../internal/driver/payloadInvalidExit.ts"
import * as BodyText from "../BodyText.ts"
import { decodeReply } from "../fieldDecoding.ts"
import * as FieldText from "../FieldText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import {
  deadLettersLua,
  type DeadLetterValues,
  decodeDeadLetter,
  idOf,
  orderOf,
  readDeadLetterLua,
  removeExpiredDeadLettersLua
} from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

/** Returns a page of a shard, after a position if one is given: for each dead letter its fields, its score and its member. */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    readDeadLetterLua,
    removeExpiredDeadLettersLua,
    `
removeExpiredDeadLetters()
local task, limit, before, order = nextText(), nextNumber(), nextText(), nextNumber()
local index = base .. ':letters'
if task ~= '' then index = index .. ':' .. task end
local function isPassed(member, at)
  return order and tonumber(at) == tonumber(before) and (tonumber(string.sub(member, 1, 16)) or 0) >= order
end
local found, offset = {}, 0
repeat
  local members = redis.call('ZREVRANGEBYSCORE', index, before, '-inf', 'WITHSCORES', 'LIMIT', offset, 100)
  for i = 1, #members, 2 do
    if #found < 3 * limit and not isPassed(members[i], members[i + 1]) then
      local deadLetter = readDeadLetter(string.sub(members[i], 18))
      if deadLetter then
        found[#found + 1] = deadLetter
        found[#found + 1] = members[i + 1]
        found[#found + 1] = members[i]
      end
    end
  end
  offset = offset + 100
until #members < 200 or #found >= 3 * limit
return found
`
  )

/** Where the first page begins. */
const TOP = ["+inf", ""]

/** Compares as the index of a shard does. */
const newestFirst = (self: DeadLetter, that: DeadLetter): number =>
  that.at - self.at || that.order - self.order

/** Makes a dead letter in place of one that does not decode; its failure holds the decoding error. */
const unreadable = (values: DeadLetterValues, issue: string) =>
  Effect.map(payloadInvalidExit(issue), (exit) => ({
    taskId: values[1] ?? null,
    task: null,
    incarnation: "",
    generation: 0,
    queue: values[4] ?? "",
    reason: "PayloadInvalid",
    exit,
    worker: null,
    body: BodyText.decode(values[8] ?? ""),
    attempts: 0
  }))

/** Decodes a dead letter at its place in the index, which the next page goes on from. */
const decode = (values: DeadLetterValues, at: string, member: string): Effect.Effect<DeadLetter> =>
  decodeReply(() => decodeDeadLetter(values)).pipe(
    Effect.catch((error) => unreadable(values, error.message)),
    Effect.map((letter) => ({ ...letter, id: idOf(member), at: Number(at), order: orderOf(member) ?? 0 }))
  )

/** Makes the operation. Each shard returns a page, and the newest of all are kept. */
export const listDeadLetters = (runner: ScriptRunner): BackendDriver<RedisStoreError>["listDeadLetters"] => {
  const { clustered, everyShard, run } = runner
  const script = Script.make<ReadonlyArray<DeadLetterValues | string>>(lua(clustered))
  return Effect.fnUntraced(function* ({ after, limit, task }) {
    const position = after === undefined ? TOP : [`${after.at}`, `${after.order}`]
    const args = [task === undefined ? "" : FieldText.encode(task), `${limit}`, ...position]
    const pages = yield* everyShard((shard) => run(script, shard, args))
    const found = yield* Effect.forEach(
      pages.flatMap((page) => Arr.chunksOf(page, 3)),
      ([values, at, member]) => decode(values as DeadLetterValues, at as string, member as string)
    )
    return found.sort(newestFirst).slice(0, limit)
  })
}
