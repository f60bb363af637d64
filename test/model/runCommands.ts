/** Runs the commands of a sequence. */
import { Effect } from "effect"
import type { Command, Sequence } from "./commands.ts"
import { compareAfterCommand, compareState } from "./compareState.ts"
import type { Failure, Setting, Store } from "./modelFixture.ts"
import { ModelRunner } from "./modelRunner.ts"
import type { Operation } from "./modelState.ts"
import { Operators } from "./operators.ts"
import { Producers } from "./producers.ts"
import * as Tasks from "./tasks.ts"
import { Workers } from "./workers.ts"

/** The runner of one store, and who uses it. */
interface Participants {
  readonly runner: ModelRunner
  readonly operators: Operators
  readonly producers: Producers
  readonly workers: Workers
}

const performCommand = (
  { operators, producers, runner, workers }: Participants,
  command: Command
): Operation<unknown> => {
  switch (command._tag) {
    case "Enqueue":
      return producers.enqueue(command)
    case "Duplicate":
      return producers.duplicate(command.message)
    case "Replay":
      return operators.replay(command.letter, command.steps)
    case "ContinueReplay":
      return operators.continueStopped(command.replay, command.steps)
    case "RemoveLetter":
      return operators.removeLetter(command.letter)
    case "Purge":
      return operators.purge(command.queue, command.withdraws)
    case "Withdraw":
      return operators.withdraw(command.purge)
    case "Continue":
      return producers.continueStopped(command.producer, command.steps)
    case "Claim":
      return workers.claim(command.worker, command.max, command.fused, command.lost)
    case "RetryClaim":
      return workers.retryClaim(command.worker, command.max)
    case "Disconnect":
      return workers.disconnect(command.worker)
    case "NextStep": {
      const { claim, ending, fused } = command
      const step = workers.withHeld(
        claim,
        (held) => workers.nextStep(held, ending, fused),
        ({ done }) => !done
      )
      return step
    }
    case "RepeatStart":
      return workers.withHeld(
        command.claim,
        (held) => workers.start(held),
        (held) => workers.mayStart(held)
      )
    case "Settle": {
      const { claim, ending, fused } = command
      return workers.withHeld(claim, (held) => workers.settle(held, ending, fused))
    }
    case "RenewRun":
      return workers.withHeld(command.claim, (held) => workers.renewRun(held, command.progress))
    case "RenewClaim":
      return workers.withHeld(command.claim, (held) => workers.renewClaim(held))
    case "Ack":
      return workers.withHeld(
        command.claim,
        (held) => workers.ack(held),
        (held) => workers.mayAck(held)
      )
    case "ReleaseMessage": {
      const { after, claim, preserveDueTime } = command
      return workers.withHeld(claim, (held) => workers.release(held, runner.units(after), preserveDueTime))
    }
    case "Cancel": {
      const id = runner.idOf(command.id)
      runner.log(`cancel ${id}`)
      return runner.repeatable(runner.cancel(id))
    }
    case "Forget": {
      const id = runner.idOf(command.id)
      runner.log(`forget ${id}`)
      return runner.repeatable(runner.forget(id))
    }
    case "Park": {
      const { letter, retention } = command
      runner.log(`park ${letter}`)
      return runner.repeatable(operators.park(letter, retention))
    }
    case "AdvanceTime":
      runner.log(`${command.units} units pass`)
      return runner.advance(command.units)
    case "Sweep":
      runner.log("sweep")
      return runner.repeatable(runner.sweep)
    case "Compare":
      runner.log(command.watch ? "compare, subscribed" : "compare")
      return compareState(runner, command.watch)
    case "RepeatLast":
      if (runner.lastRepeatable === undefined) return Effect.void
      runner.log("repeat the last operation")
      return runner.lastRepeatable
  }
}

/** Longer than any lease, any delay and any reservation. */
const PATIENCE = 4
/** Maximum of rounds: more than the crashes, retries and generations that can precede an end. */
const ROUNDS = 12

/** Lets a well-behaved worker end every task. Producers and operators that stopped are dead. */
const drain = Effect.fnUntraced(function* ({
  runner,
  operators,
  workers
}: Participants): Effect.fn.Return<void, Failure> {
  runner.log("every participant behaves from here on, and producers and operators that stopped are dead")
  yield* operators.finishPurges
  yield* workers.disconnect()
  const wait = Effect.suspend(() => {
    runner.log(`${PATIENCE} units pass`)
    return runner.advance(PATIENCE)
  })
  for (let round = 0; runner.messages.size > 0; round++) {
    if (round === ROUNDS) return yield* runner.disagree(`there are still messages after ${ROUNDS} rounds`)
    if (round > 0) yield* wait
    for (;;) {
      const fused = round % 2 === 0
      const heldMessages = yield* workers.claim("good", 4, fused)
      if (heldMessages.length === 0) break
      for (const held of heldMessages) while (!held.done) yield* workers.nextStep(held, "success", fused)
    }
  }
  // a run whose message is gone ends once its lease is over, and a reservation is removed after its time
  if ([...runner.tasks.tasks.values()].some((task) => !Tasks.isFinal(task))) {
    yield* wait
    runner.log("sweep")
    yield* runner.sweep
  }
  yield* compareState(runner, false)
})

/** Checks that no accepted task is lost, and that no task waits or runs for ever: there is no message any more. */
const assertAllEnded = Effect.fnUntraced(function* (runner: ModelRunner): Effect.fn.Return<void, Failure> {
  for (const { id } of runner.promises.lost) {
    return yield* runner.disagree(`${id} was accepted, and is lost`)
  }
  for (const { id, state } of runner.tasks.tasks.values()) {
    const hasEnded = state === "SUCCESS" || state === "FAILURE"
    if (!hasEnded) return yield* runner.disagree(`${id} is ${state} for ever: there is no message`)
  }
})

/** Empties the store. */
const clear = Effect.fnUntraced(function* ({
  runner,
  operators
}: Participants): Effect.fn.Return<void, Failure> {
  for (const id of runner.ids) {
    runner.log(`cancel ${id}, and forget it`)
    yield* runner.cancel(id)
    yield* runner.forget(id)
  }
  yield* operators.removeLetters
  yield* compareState(runner, false)
})

/** Whether the store is empty, so that another sequence can use it. */
export type IsEmpty = boolean

/** Runs a sequence in an empty store. */
export const runSequence = Effect.fnUntraced(function* (
  store: Store,
  setting: Setting,
  { commands, comparesEach }: Sequence
): Effect.fn.Return<IsEmpty, Failure> {
  const runner = new ModelRunner(store, setting)
  const participants = {
    runner,
    operators: new Operators(runner),
    producers: new Producers(runner),
    workers: new Workers(runner)
  }
  for (const command of commands) {
    yield* performCommand(participants, command)
    if (comparesEach) yield* compareAfterCommand(runner)
  }
  yield* compareState(runner, false)
  yield* drain(participants)
  yield* assertAllEnded(runner)
  yield* clear(participants)
  return runner.tasks.tasks.size === 0 && runner.tasks.letters.size === 0
})
