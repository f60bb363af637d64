import { assert, describe, it } from "@effect/vitest"

/** Skips a suite with a line that names what is missing. In continuous integration it fails instead. */
export const describeUnless = (missing: string | undefined, name: string, body: () => void): void => {
  if (missing === undefined) {
    describe(name, body)
  } else if (process.env["CI"] === "true") {
    describe(name, () => it("has its server", () => assert.fail(missing)))
  } else {
    console.warn(`Skipped: ${name}. ${missing}`)
    describe.skip(name, body)
  }
}
