/** The state of the model, beside a store, and what is watched on the way. */
import { Effect } from "effect"
import * as Suite from "../../src/testing/suites/Suite.ts"
import { ids } from "./commands.ts"
import { isGenerated } from "./definitions.ts"
import * as Messages from "./messages.ts"
import { type Failure, ModelFixture } from "./modelFixture.ts"
import { type Enqueue, Promises } from "./promises.ts"
import { StoreInvariants } from "./storeInvariants.ts"
import * as Tasks from "./tasks.ts"

/** An operation on store and model. */
export type Operation<A = void> = Effect.Effect<A, Failure>

/** What a worker decodes from the body of a message, beside its envelope. */
export interface Content {
  readonly enqueue: Enqueue
  /** Whether the producer has no backend, so that the worker creates the record. */
  readonly unrecorded: boolean
  readonly expiresMillis: number | undefined
}

let made = 0

/** Returns a number that no other sequence of this process uses, as a store may serve many. */
export const nextUnique = (): number => ++made

/** The state of the model. */
export class ModelState extends ModelFixture {
  messages: Messages.Messages = Messages.empty
  readonly invariants = new StoreInvariants()
  readonly promises = new Promises()
  /** What was sent, by body. */
  readonly contents = new Map<string, Content>()
  /** The last operation that is safe to repeat. */
  lastRepeatable: Operation<unknown> | undefined
  private bodies = 0
  private current: Tasks.Tasks = Tasks.empty
  private readonly generated: Array<string> = []

  get backend() {
    return this.store.backend
  }
  get broker() {
    return this.store.broker
  }

  get tasks(): Tasks.Tasks {
    return this.current
  }
  set tasks(after: Tasks.Tasks) {
    const before = this.current
    this.current = after
    if (before.tasks !== after.tasks) this.noteEnds(before, after)
  }

  /** Notes which tasks ended. The end of a forgotten task removes it; other tasks are not removed before their end. */
  private noteEnds(before: Tasks.Tasks, after: Tasks.Tasks): void {
    for (const task of before.tasks.values()) {
      const found = after.tasks.get(task.id)
      if (Tasks.isFinal(task) || found === task) continue
      if (found === undefined ? task.ended !== "Forgotten" : !Tasks.isFinal(found)) continue
      this.promises.ended(task.id, task.generation)
      if (this.backend.fusion !== undefined) {
        this.messages = Messages.taskEnded(this.messages, task.id)
      }
    }
  }

  /** The ids that a task may have. */
  get ids(): ReadonlyArray<string> {
    return [...ids.filter((id) => !isGenerated(id)), ...this.generated]
  }

  /** Generates an id of a kind, for one enqueue. */
  generateId(kind: string): string {
    const id = `${kind}${nextUnique()}`
    this.generated.push(id)
    return id
  }

  /** Returns a given id itself, and of a kind the newest that was generated. */
  idOf(idOrKind: string): string {
    return isGenerated(idOrKind)
      ? (this.generated.findLast((id) => id.startsWith(idOrKind)) ?? idOrKind)
      : idOrKind
  }

  /** Runs an operation that is safe to repeat. */
  repeatable<A>(operation: Operation<A>): Operation<A> {
    return Effect.suspend(() => {
      this.lastRepeatable = operation
      return operation
    })
  }

  /** Returns a unique body for a message. */
  nextBody(id: string): string {
    return `${id}#${++this.bodies}`
  }

  /** Returns what a worker decodes from a body. */
  contentOf(body: string | Uint8Array): Content {
    return this.contents.get(String(body))!
  }

  /** Fails with a violated invariant. */
  assertInvariant(wrong: string | undefined): Operation {
    return wrong === undefined ? Effect.void : this.disagree(wrong)
  }

  /** Advances the model and returns its answer. */
  applyModel<A>([answer, after]: Tasks.Step<A>): A {
    this.tasks = after
    return answer
  }

  /** Tasks that reads no longer show and that the sweep may still have to remove. */
  protected unswept = 0

  /**
   * Removes stranded reservations that the store no longer has. A reservation that was not published in its time is
   * removed by the sweep at the latest; until then the model follows the store.
   */
  readonly followStore: Operation = Effect.suspend(() => {
    const stranded = [...this.tasks.tasks.values()].filter((task) => Tasks.isStranded(task, this.now))
    return Effect.forEach(
      stranded,
      ({ id }) =>
        Effect.map(this.call(Suite.only(this.backend.read([id]))), (found) => {
          if (found === undefined) {
            this.tasks = Tasks.remove(this.tasks, id)
            this.unswept++
          }
          // the read has ended what had expired
          else this.tasks = Tasks.read(this.tasks, id, this.now)[1]
        }),
      { discard: true }
    )
  })
}
