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
import { deadLetterPosition, type DeadLetterPosition } from "./deadLetterPosition.ts"
import {
  deadLettersLua,
  type DeadLetterValues,
  decodeDeadLetter,
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
local task, limit, before, member = nextText(), nextNumber(), nextText(), nextText()
local index = base .. ':letters'
if task ~= '' then index = index .. ':' .. task end
local found, offset = {}, 0
repeat
  local members = redis.call('ZREVRANGEBYSCORE', index, before, '-inf', 'WITHSCORES', 'LIMIT', offset, 100)
  for i = 1, #members, 2 do
    local passed = member ~= '' and tonumber(members[i + 1]) == tonumber(before) and members[i] >= member
    if not passed and #found < 3 * limit then
      local deadLetter = readDeadLetter(string.sub(members[i], 17))
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

/** The position before the newest dead letter. */
const TOP: DeadLetterPosition = { at: "+inf", member: "" }

interface Positioned extends DeadLetterPosition {
  readonly deadLetter: DeadLetter
}

/** Compares as the index of a shard does. */
const newestFirst = (self: Positioned, that: Positioned): number =>
  Number(that.at) - Number(self.at) || Buffer.compare(Buffer.from(that.member), Buffer.from(self.member))

/** Makes a dead letter in place of one that does not decode; its failure holds the decoding error. */
const unreadable = (values: DeadLetterValues, at: string, member: string, issue: string) =>
  Effect.map(payloadInvalidExit(issue), (exit): DeadLetter => ({
    id: member.slice(16),
    taskId: values[1] ?? null,
    task: null,
    generation: 0,
    queue: values[4] ?? "",
    reason: "PayloadInvalid",
    exit,
    worker: null,
    body: BodyText.decode(values[8] ?? ""),
    attempts: 0,
    at: Number(at)
  }))

const decode = (values: DeadLetterValues, at: string, member: string): Effect.Effect<Positioned> =>
  decodeReply(() => decodeDeadLetter(values)).pipe(
    Effect.catch((error) => unreadable(values, at, member, error.message)),
    Effect.map((deadLetter) => ({ deadLetter, at, member }))
  )

/**
 * Makes the operation. Each shard returns a page, and the newest of all are kept. If the last dead letter of the page before
 * is gone, the list starts at the newest again.
 */
export const listDeadLetters = (runner: ScriptRunner): BackendDriver<RedisStoreError>["listDeadLetters"] => {
  const { clustered, everyShard, run } = runner
  const script = Script.make<ReadonlyArray<DeadLetterValues | string>>(lua(clustered))
  const positionOf = deadLetterPosition(runner)
  return Effect.fnUntraced(function* ({ after, limit, task }) {
    const { at, member } = (after === undefined ? undefined : yield* positionOf(after)) ?? TOP
    const args = [task === undefined ? "" : FieldText.encode(task), `${limit}`, at, member]
    const pages = yield* everyShard((shard) => run(script, shard, args))
    const found = yield* Effect.forEach(
      pages.flatMap((page) => Arr.chunksOf(page, 3)),
      ([values, at, member]) => decode(values as DeadLetterValues, at as string, member as string)
    )
    return found
      .sort(newestFirst)
      .slice(0, limit)
      .map(({ deadLetter }) => deadLetter)
  })
}
