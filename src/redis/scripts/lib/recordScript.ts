/** Puts scripts over records together. */
import { deadlinesLua } from "./deadlines.ts"
import { endsLua } from "./ends.ts"
import { notifyLua, preludeLua } from "./prelude.ts"
import { recordsLua, withFieldIndexes } from "./records.ts"
import { subscribersLua } from "./subscribers.ts"

/** Returns the text of a script: the functions over records, then the given parts. */
export const recordScript = (clustered: boolean, ...parts: ReadonlyArray<string>): string =>
  withFieldIndexes(
    [preludeLua, notifyLua(clustered), recordsLua, subscribersLua, deadlinesLua, endsLua, ...parts].join("")
  )
