#!/usr/bin/env python3
"""Write the text that the static table learns from: glosses, examples and words of WordNet 3.0, and requests made from
the templates below with WordNet's words. One text a line, always the same for the same seed.

No line of any routing data set is read. WordNet's files (data.noun, cntlist.rev, ...) come with the Debian package
`wordnet-base`; their licence is permissive (see models/embed/README.md)."""

import argparse
import collections
import os
import random
import re

# Everyday requests, as people put them to assistants, help desks and programs. {n}: a noun, {v}: a verb,
# {g} and {p}: its -ing and past forms, {a}: an adjective, {d}: a number.
TEMPLATES = """
how do i {v} my {n}
how do i {v} a {n}|how can i {v} the {n} of the {n}|how would i go about {g} my {n}
can you {v} the {n} for me|could you please {v} my {n}|would you {v} this {n}
i need to {v} my {n}|i want to {v} a {n} for {n}|i would like to {v} the {n}|i'd like help with {g} a {n}
what is the {n} of the {n}|what is my {n}|what's the {n} for {n}|what does {n} mean|what kind of {n} is this
what's the best {n} for {g}|what {n} do i need to {v} a {n}|which {n} is {a}|which {n} should i {v}
why is my {n} {a}|why was my {n} not {p}|why can't i {v} my {n}|why does the {n} {v}|why did the {n} change
when is the {n}|when will my {n} arrive|when was the last time i {p} the {n}|when does the {n} start
where is my {n}|where can i {v} a {n}|where do i find the {n}|where did i leave my {n}
who is the {n}|who can {v} my {n}|who made this {n}
is there a {n} near me|is there a {n} for {g} a {n}|is it {a} to {v} a {n}|is the {n} {a} today|are there any {n} left
do i have to {v} the {n}|do i have any {n} on {n}|does the {n} have {n}|do you have a {n} for {n}|did my {n} go through
tell me about {n}|tell me how to {v} {n}|tell me the {n} of my {n}|tell me more about the {a} {n}
show me my {n}|show me the {a} {n}|list all my {n}|list the {n} in {n}|find a {a} {n}|find me the {n} with {n}
set a {n} for {d} {n}|set the {n} to {d}|set my {n} to {a}|turn on the {n}|turn off the {n}|turn the {n} up|turn down the {n}
add {n} to my {n}|add a {n} to the {n}|remove {n} from the {n}|delete my {n}|cancel my {n}|cancel the {n} for {n}
change my {n}|change the {n} to {n}|change my {n} from {n} to {n}|update my {n}|reset the {n}|open the {n}|close the {n}
book a {n} for {d} people|book me a {a} {n}|reserve a {n} at {d}|order a {n}|order {d} {n}|buy a {a} {n}
play some {a} {n}|play the {n} by {n}|start the {n}|stop the {n}|pause the {n}|skip this {n}
send a {n} to {n}|send {d} dollars to my {n}|call my {n}|email the {n} about {n}|remind me to {v} the {n}|remind me about the {n}
my {n} is {a}|my {n} is not {g}|my {n} has been {p}|the {n} does not {v}|the {n} was {a}|there is a {n} in my {n}
i lost my {n}|i forgot my {n}|i can't {v} my {n}|i don't know how to {v}|i don't understand the {n}|i never {p} that {n}
i think my {n} was {p}|i have a question about my {n}|i have a problem with {g} the {n}|i am {g} a {n}|i was charged for a {n}
how much is a {n}|how much {n} is in {n}|how many {n} are in a {n}|how many {n} do i have|how long does it take to {v} a {n}
how long will the {n} be|how far is the {n}|how old is the {n}|how {a} is the {n}|how often should i {v} my {n}
what time is the {n}|what day is the {n}|what is the {n} in {n}|what {n} is it in {n}|what are the {n} of {n}
what happens if i {v} my {n}|what should i do if the {n} is {a}|what do i need for a {n}
translate {n} to {n}|how do you say {n} in {n}|what is the word for {n}|how do you spell {n}|define {n}
convert {d} {n} to {n}|calculate the {n} of {d} and {d}|what is {d} times {d}
write a {n} about {n}|write a {a} {n} to my {n}|summarize this {n}|explain the {n} to a {n}|give me a {n} for {n}
suggest a {n}|recommend a {a} {n} for {n}|compare the {n} and the {n}|describe a {a} {n}|classify the {n} of this {n}
check my {n}|check if the {n} is {a}|check the {n} for {n}|verify my {n}|report a {a} {n}|track my {n}|pay my {n}|transfer my {n}
can i {v} my {n} with a {n}|can i have a {n}|can i get a {n} for my {n}|can i use {n} instead of {n}|may i {v} the {n}
will it {v} tomorrow|will the {n} be {a}|should i {v} a {n}|should i take a {n} to the {n}
please {v} the {n}|please help me {v}|please tell me the {n}|please give me my {n}
thanks for the {n}|that is a {a} {n}|i like {n}|i don't like the {n}|you are a {a} {n}|are you a {n}
{n} and {n}|{n} for {n}|{a} {n}|{n} {n}|{g} {n}|{v} {n}|{n} not {g}|{n} status|{n} settings|{n} help|{n} information
{n}, {n} and {n}|the {a} {n} of the {n}|{n} in the {n}|{g} a {n} with {n}|a {n} that is {a}|new {n}|next {n}|my last {n}
"""

# Words of everyday subjects. A share of the requests draws its words from one of these, so that what stands together in a
# request belongs together: nouns, then verbs.
SUBJECTS = """
money: bank account, card, balance, payment, transfer, refund, fee, charge, transaction, statement, deposit, withdrawal, cash machine, exchange rate, currency, pin code, salary, loan, mortgage, interest, credit limit, direct debit, receipt, invoice, identity check, passcode, wallet, cheque, savings, bill, budget, tax, insurance, pension, debt, cashback, merchant, limit, top up, virtual card | pay, transfer, deposit, withdraw, cancel, freeze, activate, verify, refund, charge, decline, top up, exchange, dispute, receive, send, block, link, order, track
travel: flight, hotel, reservation, luggage, passport, visa, ticket, train, bus, airport, gate, seat, rental car, itinerary, vaccination, timezone, travel alert, plug adapter, suitcase, taxi, ride, traffic, directions, distance, map, route, trip, holiday, destination, delay | book, cancel, confirm, reserve, pack, board, rent, visit, reach, drive, leave, arrive, change, fly
home: light, lamp, thermostat, heating, alarm, door, lock, window, vacuum, oven, speaker, volume, socket, television, channel, camera, kitchen, bedroom, garden, dishwasher, laundry, coffee machine, fan, blinds | turn on, turn off, dim, open, close, start, stop, set, raise, lower, clean, fix, brighten, lock
kitchen: recipe, meal, dinner, breakfast, lunch, ingredient, calories, restaurant, table, menu, food, pizza, pasta, chicken, rice, bread, soup, salad, dessert, coffee, tea, wine, cheese, spice, sugar, cook time, portion, vegetarian dish, takeaway, delivery, review | cook, bake, boil, order, eat, taste, replace, substitute, freeze, recommend, serve, reheat, chop
calendar: meeting, appointment, reminder, event, schedule, calendar, alarm, timer, deadline, birthday, holiday, date, time, day, week, weekend, month, invitation, to do list, shopping list, item, task, note, party, lecture | schedule, move, cancel, postpone, remind, add, remove, check, plan, accept, snooze, invite
media: song, music, playlist, album, artist, band, movie, film, show, episode, podcast, radio station, audiobook, game, book, chapter, concert, genre, actor, director, lyrics, news, headline, video, photo | play, pause, skip, repeat, rate, like, watch, listen, read, shuffle, recommend, find, queue
people: email, message, text, call, contact, phone number, address, friend, mother, boss, colleague, brother, name, nickname, reply, inbox, subject, tweet, post, social network, joke, story, greeting, hobby, age, language, accent, question, answer | call, text, email, reply, tell, ask, share, post, meet, greet, introduce, thank, repeat
work: job, salary, vacation day, payday, contract, interview, application, manager, team, direct deposit, retirement plan, expense, office, project, report, presentation, policy, customer, order, complaint, ticket, shipment, package, supplier, warranty, return, discount, subscription | apply, hire, report, approve, submit, file, track, ship, return, replace, deliver, resign, promote, invoice
computers: file, folder, program, function, class, variable, bug, error, test, database, query, table, column, server, website, password, account, app, update, network, printer, screen, keyboard, battery, code, commit, branch, script, api, json, log, backup, device, phone, pin, code review, stack trace, unit test | install, update, delete, restart, debug, compile, deploy, write, refactor, connect, reset, sync, print, explain, test, fix, download, search
health: doctor, medicine, prescription, symptom, fever, headache, allergy, vaccine, insurance card, blood pressure, diet, exercise, sleep, pain, hospital, nurse, dentist, injury, pregnancy, weight, vitamin, side effect, dose, diagnosis, therapy | treat, take, prevent, diagnose, measure, lose, heal, exercise, prescribe, relieve, hurt
cars: car, tire, oil, engine, gas, fuel, mileage, brake, battery, oil change, tire pressure, garage, parking, licence, accident, insurance claim, jump start, traffic, speed limit, charger, mechanic, dashboard | change, check, fill, repair, start, park, schedule, drive, jump, service, inspect, sell
learning: word, sentence, definition, synonym, spelling, translation, grammar, language, essay, paragraph, summary, title, poem, argument, paper, source, history, geography, capital, country, president, war, science, formula, equation, fraction, percentage, sum, average, square root, unit, length, weight, temperature, shape, logic puzzle, riddle, proof, theorem | translate, define, spell, summarize, explain, convert, calculate, compare, solve, prove, rewrite, shorten, classify, count, sort, multiply, divide
weather: weather, rain, snow, sun, wind, temperature, forecast, storm, umbrella, humidity, cloud, sunrise, sunset, degree, season, winter, summer, ice, flood, heat, tomorrow, tonight, weekend, city | rain, snow, freeze, expect, bring, wear, clear, change
law and state: law, contract, court, lawyer, tax return, vote, election, permit, police, fine, rights, privacy, data protection, licence, terms, clause, lease, tenant, landlord, rent, passport, identity card, citizenship, form | sign, file, renew, sue, vote, pay, appeal, apply, comply, register, terminate, review
shopping: price, shop, store, order, size, colour, shirt, shoes, dress, gift, cart, checkout, coupon, discount, delivery, delivery date, stock, brand, quality, return, exchange, gift card, loyalty points, rewards card, sale, product, review, black friday, catalogue | buy, order, return, exchange, compare, redeem, deliver, try, sell, choose, ship, gift
feelings: love, anger, fear, joy, mood, opinion, complaint, praise, insult, review, feeling, comment, tone, sentiment, hate, surprise, disgust, trust, apology, advice, compliment, sarcasm, fun fact, dream, meaning of life | like, hate, enjoy, miss, complain, praise, regret, worry, hope, laugh, cry, apologize
"""

KINDS = {"1": "n", "2": "v", "3": "a", "5": "a"}


def frequent_words(folder):
    """Words of each kind with how often WordNet's tagged texts use them (at least 1)."""
    words = {kind: collections.Counter() for kind in "nva"}
    with open(os.path.join(folder, "cntlist.rev")) as lines:
        for line in lines:
            key, _, count = line.split()
            lemma, rest = key.split("%")
            kind = KINDS.get(rest[0])
            if kind and re.fullmatch(r"[a-z]{2,}(_[a-z]+)?", lemma):
                words[kind][lemma.replace("_", " ")] += int(count)
    return words


def synsets(folder):
    """(words, gloss, examples) of every synset."""
    for part in ("noun", "verb", "adj", "adv"):
        with open(os.path.join(folder, f"data.{part}"), encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("  ") or " | " not in line:
                    continue
                head, text = line.rstrip().split(" | ", 1)
                fields = head.split()
                words = [re.sub(r"\(.*\)$", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
                examples = re.findall(r'"([^"]{8,})"', text)
                yield words, re.sub(r';?\s*"[^"]*"', "", text).strip("; "), examples


def ing(verb):
    first, _, rest = verb.partition(" ")
    if first.endswith("e") and not first.endswith(("ee", "oe", "ye")):
        first = first[:-1]
    elif re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", first):
        first += first[-1]
    return f"{first}ing {rest}".strip()


def past(verb):
    first, _, rest = verb.partition(" ")
    if first.endswith("e"):
        first += "d"
    elif re.search(r"[^aeiou]y$", first):
        first = first[:-1] + "ied"
    elif re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", first):
        first += first[-1] + "ed"
    else:
        first += "ed"
    return f"{first} {rest}".strip()


def subjects():
    for line in SUBJECTS.strip().splitlines():
        nouns, verbs = line.split(": ", 1)[1].split(" | ")
        yield {"n": nouns.split(", "), "v": verbs.split(", ")}


def requests(words, count, share, rng):
    templates = [t for line in TEMPLATES.strip().splitlines() for t in line.split("|")]
    pools = {}
    for kind, counter in words.items():
        items = sorted(counter.items())
        # Below 1, so that rare words get in.
        pools[kind] = ([w for w, _ in items], [(n + 1) ** 0.7 for _, n in items])
    forms = {"g": ing, "p": past}
    draws = {kind: iter(rng.choices(*pool, k=4 * count)) for kind, pool in pools.items()}
    themes = list(subjects())

    def fill(match):
        kind = match.group(1)
        if kind == "d":
            return str(rng.choice((rng.randint(1, 12), rng.randint(10, 500))))
        base = "v" if kind in forms else kind
        word = rng.choice(theme[base]) if base in theme else next(draws[base])
        return forms[kind](word) if kind in forms else word

    for _ in range(count):
        theme = rng.choice(themes) if share and rng.random() < share else {}
        yield re.sub(r"\{(\w)\}", fill, rng.choice(templates))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wordnet", help="folder with WordNet's data.* and cntlist.rev")
    parser.add_argument("out", help="text file to write")
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--glosses", type=int, default=25_000)
    parser.add_argument("--names", type=int, default=25_000)
    parser.add_argument("--subjects", type=float, default=0.5, help="share of requests about one everyday subject")
    parser.add_argument("--without", help="a file whose lines are left out")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    everything = list(synsets(options.wordnet))
    examples = [e for _, _, found in everything for e in found]
    glosses = rng.sample([g for _, g, _ in everything if len(g) < 160], options.glosses)
    names = rng.sample(sorted({w for words, _, _ in everything for w in words if " " in w}), options.names)
    made = list(requests(frequent_words(options.wordnet), options.requests, options.subjects, rng))
    lines = sorted(set(examples + glosses + names + made))
    rng.shuffle(lines)
    lines = [" ".join(line.split()) for line in lines]
    if options.without:
        with open(options.without, encoding="utf-8") as known:
            known = {line.rstrip("\n") for line in known}
        lines = [line for line in lines if line not in known]
    with open(options.out, "w", encoding="utf-8") as out:
        out.writelines(line + "\n" for line in lines)
    print(f"{len(examples)} examples, {len(glosses)} glosses, {len(names)} names, {len(made)} requests: {len(lines)} lines")


if __name__ == "__main__":
    main()
