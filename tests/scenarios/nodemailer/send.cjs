// Send the messages of a JSON job on standard input with nodemailer, and print what it makes of each.
//
// The job: {"transport": options of createTransport, "messages": [options of sendMail, ...]}; NODE_PATH leads to
// nodemailer. The answer: a list with {"response", "accepted", "rejected"} or {"code", "responseCode", "response",
// "command"} for each message, in order.
'use strict';

const { readFileSync } = require('node:fs');
const nodemailer = require('nodemailer');

const job = JSON.parse(readFileSync(0, 'utf8'));
const transport = nodemailer.createTransport(job.transport);

Promise.all(
    job.messages.map(message =>
        transport.sendMail(message).then(
            ({ response, accepted, rejected }) => ({ response, accepted, rejected }),
            ({ message, code, responseCode, response, command }) => ({ message, code, responseCode, response, command })
        )
    )
).then(results => {
    transport.close();
    process.stdout.write(JSON.stringify(results));
});
