/** Starts runs of delivered messages. */
import { Effect } from "effect"
import type { BackendDriver, Start, Started } from "../../BackendDriver.ts"
import * as BodyText from "../BodyText.ts"
import * as FieldText from "../FieldText.ts"
import * as IncarnationText from "../IncarnationText.ts"
import type { RedisStoreError } from "../RedisStoreError.ts"
import type { RefusalLog } from "../RefusalLog.ts"
import * as Script from "../Script.ts"
import { encodeGroups } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { deadLettersLua } from "./lib/deadLetters.ts"
import { whenFullLua } from "./lib/fullMemory.ts"
import { lapseLua } from "./lib/lapse.ts"
import { recordScript } from "./lib/recordScript.ts"
import { decodeStarted, encodeStartDefaults, startsLua } from "./lib/starts.ts"

/** The answer to a start that has to be repeated with the message's body. */
const NEEDS_BODY = "L"
/** The answer to a start that is refused, since the server's memory is full. */
const REFUSED = "F"
/** After how long a refused start is tried again. */
const REFUSED_MILLIS = 1_000

const decode = (answer: string): Started =>
  answer === REFUSED ? { _tag: "Busy", millis: REFUSED_MILLIS } : decodeStarted(answer)

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    whenFullLua,
    deadLettersLua,
    lapseLua,
    startsLua,
    `
-- While the memory is full no run is started, except one that was started with this token.
local isRefused = isOverrun()
local function mayStart(value, token)
  return not isRefused or not value or TERMINAL[string.sub(value, 1, 7)]
    or string.find(value, 'STARTED ' .. token .. ' ', 1, true) == 1
end

local function start(id, token, body)
  local key = base .. ':task:' .. id
  local value = getText(key)
  if not mayStart(value, token) then return '${REFUSED}' end
  local started, subscribers
  if value then started, subscribers = startFirstRun(value, token) end
  if not started then return startAnyRun(id, value, token, body) end
  countText(started, value)
  redis.call('SET', key, started)
  if subscribers ~= '-' then hintSubscribers(id, subscribers, false) end
  return 'R'
end

local answers = {}
while position < #ARGV do
  local worker, process = nextText(), nextText()
  group = nextStartDefaults()
  group.worker, group.process, group.queue = worker, process, nextText()
  group.atMostOnce, group.generation, group.incarnation = nextText(), nextText(), nextText()
  local bodies = nextText() == '1'
  prepareFirstRuns()
  for i = 1, nextNumber() do answers[#answers + 1] = start(nextText(), nextText(), bodies and nextText()) end
end
saveOverrun()
sendHints()
return answers
`
  )

const encode = (
  starts: ReadonlyArray<Start>,
  process: string,
  withBodies: boolean
): ReadonlyArray<string> => {
  const hasBody = ({ deliveryMode }: Start) => withBodies || deliveryMode === "at-most-once"
  return encodeGroups(
    starts,
    (start) => [
      FieldText.encode(start.worker),
      process,
      ...encodeStartDefaults(start),
      start.queue,
      start.deliveryMode === "at-most-once" ? "1" : "-",
      `${start.generation}`,
      IncarnationText.encode(start.incarnation),
      hasBody(start) ? "1" : "0"
    ],
    (args, start) => {
      args.push(start.id, FieldText.encode(start.token))
      if (hasBody(start)) args.push(BodyText.encode(start.body))
    }
  )
}

/**
 * Makes the operation for the runs of a process. Starts are sent without bodies first; those of tasks that end here, and
 * need their body for a dead letter, are repeated with it.
 */
export const start = (
  { clustered, run, sharded }: ScriptRunner,
  refusals: RefusalLog,
  process: string
): BackendDriver<RedisStoreError>["start"] => {
  const script = Script.make<ReadonlyArray<string>>(lua(clustered))
  const startSome = (
    shard: number,
    starts: ReadonlyArray<Start>,
    withBodies: boolean
  ): Effect.Effect<ReadonlyArray<Started>, RedisStoreError> =>
    Effect.flatMap(run(script, shard, encode(starts, process, withBodies)), (answers) => {
      if (answers.includes(REFUSED)) return Effect.as(refusals.onRefused(shard), answers.map(decode))
      refusals.onAccepted(shard)
      const lost = starts.filter((_, i) => answers[i] === NEEDS_BODY)
      if (lost.length === 0) return Effect.succeed(answers.map(decode))
      return Effect.map(startSome(shard, lost, true), (repeated) => {
        let next = 0
        return answers.map((answer) => (answer === NEEDS_BODY ? repeated[next++]! : decode(answer)))
      })
    })
  return (starts) =>
    sharded(
      starts,
      ({ id }) => id,
      (shard, some) => startSome(shard, some, false)
    )
}
