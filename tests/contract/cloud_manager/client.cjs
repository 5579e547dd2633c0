// Call the vendor's library as it is: a job from stdin, a list of results to stdout.
//
// {"org", "key", "token", "url", "calls": [[method, ...arguments], …]}; each result has `value`, or `error` with the
// library's code and message and what it read from our answer.
const { init } = require('@adobe/aio-lib-cloudmanager')

async function main (job) {
  const client = await init(job.org, job.key, job.token, job.url)
  const results = []
  for (const [method, ...given] of job.calls) {
    try {
      results.push({ value: await client[method](...given) })
    } catch (error) {
      const { errors, errorDetails, validationErrors, requestId } = error.sdkDetails || {}
      results.push({ error: { code: error.code, message: error.message, errors, errorDetails, validationErrors, requestId } })
    }
  }
  process.stdout.write(JSON.stringify(results))
}

let text = ''
process.stdin.on('data', part => { text += part })
process.stdin.on('end', () => main(JSON.parse(text)).catch(error => {
  process.stderr.write(String(error.stack))
  process.exit(1)
}))
