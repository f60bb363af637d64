/** Lists dead letters, newest first. */
import { Array as Arr, Effect } from "effect"
import type { BackendDriver, DeadLetter } from "../../BackendDriver.ts"
import * as defaults from "../../internal/defaults.ts"
import { payloadInvalidExit } from "../../internal/driver/payloadInvalidExit.ts"
import * as BodyText from "../BodyText.ts"
import { decodeReply } from "../fieldDecoding.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import * as Script from "../Script.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import {
  deadLettersLua,
  type DeadLetterValues,
  decodeDeadLetter,
  encodeQuery,
  idOf,
  newestFirst,
  orderOf,
  readDeadLetterLua,
  removeExpiredDeadLettersLua,
  visitDeadLettersLua
} from "./lib/deadLetters.ts"
import { recordScript } from "./lib/recordScript.ts"

/**
 * Returns a page of a shard: whether it ends before a dead letter that would make it too large (0 or 1), and for each dead
 * letter its fields, its score and its member.
 */
const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    deadLettersLua,
    readDeadLetterLua,
    removeExpiredDeadLettersLua,
    visitDeadLettersLua,
    `
removeExpiredDeadLetters()
local task, limit, before, order, maxSize = nextText(), nextNumber(), nextText(), nextNumber(), nextNumber()
local found, size = { 0 }, 0
visitDeadLetters(task, before, order, function(member, at)
  local id = string.sub(member, 18)
  if not hasDeadLetter(id) then return true end
  size = size + redis.call('HSTRLEN', deadLetterKey(id), 'body') + redis.call('HSTRLEN', deadLetterKey(id), 'exit')
  if #found > 1 and size > maxSize then
    found[1] = 1
    return false
  end
  found[#found + 1] = readDeadLetter(id)
  found[#found + 1] = at
  found[#found + 1] = member
  return #found < 3 * limit
end)
return found
`
  )

type Page = readonly [isCut: number, ...deadLetters: Array<DeadLetterValues | string>]

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

/**
 * Makes the operation. Each shard returns a page, and the newest of all are kept. Behind the end of a page that was cut for its
 * size there may be more in its shard, so nothing older is kept.
 */
export const listDeadLetters = (runner: ScriptRunner): BackendDriver<RedisStoreError>["listDeadLetters"] => {
  const { clustered, everyShard, keyspace, run } = runner
  const script = Script.make<Page>(lua(clustered))
  const maxSize = `${Math.ceil(defaults.maxReplySize / keyspace.shards)}`
  return Effect.fnUntraced(function* (query) {
    const args = [...encodeQuery(query), maxSize]
    const pages = yield* everyShard((shard) =>
      Effect.flatMap(run(script, shard, args), ([isCut, ...values]) =>
        Effect.map(
          Effect.forEach(Arr.chunksOf(values, 3), ([fields, at, member]) =>
            decode(fields as DeadLetterValues, at as string, member as string)
          ),
          (letters) => ({ letters, end: isCut === 1 ? letters.at(-1) : undefined })
        )
      )
    )
    const ends = pages.flatMap(({ end }) => end ?? [])
    return pages
      .flatMap(({ letters }) => letters)
      .filter((letter) => ends.every((end) => newestFirst(letter, end) <= 0))
      .sort(newestFirst)
      .slice(0, query.limit)
  })
}
