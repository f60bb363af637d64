import { defaultServerConditions } from "vite"
import { defineConfig } from "vitest/config"

/** Minutes each, or tests of what tests are made with: `npm run test:faults` runs them, and `npm test` some of their kind. */
const long = [
  "test/load/{mariadb,postgres,rabbitmq,sqlite}.*",
  "test/load/storeDown.test.ts",
  "test/{mariadb,postgres,rabbitmq,support}/ownServer*.test.ts",
  "test/support/network.test.ts"
]

export default defineConfig({
  // `import … from "chicory"` means src (see "exports" in package.json)
  ssr: { resolve: { conditions: ["chicory-src", ...defaultServerConditions] } },
  test: {
    include: ["test/**/*.test.ts"],
    exclude: long,
    pool: "forks",
    // they mostly wait, for servers and for time
    maxWorkers: 4,
    reporters: ["default"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})
