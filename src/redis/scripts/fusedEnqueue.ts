/** Creates records, and publishes the messages of those that were created. */
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { Created, NewRecord } from "../../BackendDriver.ts"
import type { Envelope } from "../../BrokerDriver.ts"
import * as defaults from "../../internal/defaults.ts"
import * as MessageText from "../MessageText.ts"
import * as Script from "../Script.ts"
import { groupByHead } from "../scriptArguments.ts"
import type { ScriptRunner } from "../ScriptRunner.ts"
import { createsLua, decodeCreated, GROUP_HEAD, encodeRecordHead, pushRecord } from "./lib/creates.ts"
import { handOverLua } from "./lib/handOver.ts"
import { encodeMessageHead, publishesLua } from "./lib/publishes.ts"
import { queuesLua } from "./lib/queues.ts"
import { recordScript } from "./lib/recordScript.ts"

/** A record and its message. */
export interface Enqueued {
  readonly record: NewRecord
  readonly message: Envelope
}

const lua = (clustered: boolean): string =>
  recordScript(
    clustered,
    createsLua,
    queuesLua,
    publishesLua,
    handOverLua,
    `
local answers = {}
while position < #ARGV do
  local queue, task, priority, delay = nextText(), nextText(), nextNumber(), nextNumber()
  local created, values, reserved = {}, {}, nil
  -- the id of the first record, behind the head of its group
  local id = ARGV[position + ${GROUP_HEAD + 1}]
  createGroup(created, delay > 0 and function(count)
    reserved = reserveMembers(count, task, priority, delay)
    local messages = {}
    for i, member in ipairs(reserved) do messages[i] = delayedMessageOf(queue, member) end
    return messages
  end)
  local members = reserved and {}
  for i, answer in ipairs(created) do
    local value = nextText()
    if answer == 'C' then
      values[#values + 1] = value
      if reserved then members[#values] = reserved[i] end
    end
    answers[#answers + 1] = answer
  end
  local isHandedOver, idle = false, nil
  -- one task alone, to be run now
  if #values == 1 and #answers == 1 and position == #ARGV and delay == 0 and priority == ${defaults.priority} then
    idle = takeIdle(queue, 1)
    if idle[1] then isHandedOver, members, idle = handOver(queue, task, id, values[1], idle) end
  end
  if #values > 0 and not isHandedOver then publish(queue, task, priority, delay, values, members, idle) end
end
sendDueTimes()
sendHints()
return answers
`
  )

/** Encodes groups: the head of the messages, the head of their records, their number, the records, the messages. */
const encode = (items: ReadonlyArray<Enqueued>, process: string): ReadonlyArray<string> => {
  const encodeHead = encodeRecordHead(process)
  const args: Array<string> = []
  const groups = groupByHead(items, ({ message, record }) => [
    ...encodeMessageHead(message),
    ...encodeHead(record)
  ])
  for (const { head, items: some } of groups) {
    args.push(...head, `${some.length}`)
    for (const item of some) pushRecord(args, item.record)
    for (const item of some) args.push(MessageText.encode(item.message))
  }
  return args
}

/** Makes the operation of a process for records whose keys, if they have any, lie in their own shards. */
export const fusedEnqueue = ({ clustered, run, sharded }: ScriptRunner, process: string) => {
  const script = Script.make<ReadonlyArray<string>>(lua(clustered))
  return (items: ReadonlyArray<Enqueued>): Effect.Effect<ReadonlyArray<Created>, RedisError> =>
    sharded(
      items,
      ({ record }) => record.id,
      (shard, some) =>
        Effect.map(run(script, shard, encode(some, process)), (answers) => answers.map(decodeCreated))
    )
}
