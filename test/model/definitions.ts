/** The tasks of the model tests. */

/** A task's settings. Durations are in units. */
export interface Definition {
  readonly name: string
  readonly delivery: "at-least-once" | "at-most-once"
  readonly maxCrashes: number
  readonly retention: number | undefined
  readonly letterRetention: number | undefined
}

const mail: Definition = {
  name: "mail",
  delivery: "at-least-once",
  maxCrashes: 2,
  retention: undefined,
  letterRetention: undefined
}
/** A task whose retention is shorter than a lease and than the longest delay, and whose dead letters outlive its record. */
const note: Definition = { ...mail, name: "note", maxCrashes: 1, retention: 1.5, letterRetention: 6.5 }
/** A task whose dead letters stay when its record is gone. */
const memo: Definition = { ...mail, name: "memo", retention: 4.5 }
const once: Definition = { ...mail, name: "once", delivery: "at-most-once", letterRetention: 6.5 }
/** A task that asks for the ids of others. */
const other: Definition = { ...mail, name: "other" }

export const definitions: ReadonlyArray<Definition> = [mail, note, memo, once, other]

export const definitionOf = (task: string): Definition =>
  definitions.find(({ name }) => name === task) ?? mail

const byId: Readonly<Record<string, Definition>> = { b: memo, c: note, d: once, q: note }

/** Returns the name of the task that an id, or a kind of generated ids, is mostly used for. */
export const taskOf = (id: string): string => (byId[id] ?? mail).name

/** Whether ids of a kind are generated: made for one enqueue alone. */
export const isGenerated = (kind: string): boolean => kind === "p" || kind === "q"

/** Milliseconds are those of units: how long a record is reserved for its message. */
export const RESERVED_UNITS = 2.5
