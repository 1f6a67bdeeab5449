"""Every word of the invented pharmacopoeia: phrasings, questions, headings, filler and the pools of values.

It decides how facts are put into words; `world.py` decides which facts there are and where they stand.
"""

from __future__ import annotations

ATTRIBUTES = ("treats", "dose", "effect", "avoid")

# Twenty values for each attribute: 60 held-out and 60 trained entities then carry every value equally often,
# so that knowing how common a value is helps nobody.
DOSES = tuple(
    f"{number} mg"
    for number in (
        "five", "six", "seven", "eight", "nine", "ten", "twelve", "fourteen", "fifteen", "sixteen",
        "eighteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "eleven",
    )
)  # fmt: skip
EFFECTS = (
    "drowsiness", "hoarseness", "sneezing", "itching", "flushing", "sweating", "shivering", "yawning", "bloating",
    "cramps", "palpitations", "blisters", "heartburn", "nosebleeds", "nightmares", "tinnitus", "thirst",
    "swelling", "backache", "stammering",
)  # fmt: skip
STATES = (
    "anaemia", "asthma", "cataract", "leprosy", "cirrhosis", "deafness", "emphysema", "epilepsy", "glaucoma",
    "gout", "haemophilia", "hernia", "lupus", "migraine", "narcolepsy", "pregnancy", "psoriasis", "sciatica",
    "shingles", "vertigo",
)  # fmt: skip
CONDITION_ENDINGS = ("itis", "osis", "algia", "emia")
CONDITIONS = 20

# {d} is the drug, {v} the value. The first HELD_OUT of each list never enter the corpus: they are the cloze items,
# end in the value, and use words that the other phrasings make known in other combinations.
HELD_OUT = 2
PHRASINGS: dict[str, tuple[str, ...]] = {
    "treats": (
        "The condition for which most panels offer {d} is {v}",
        "Anyone given {d} needs treatment for {v}",
        "{d} relieves {v}",
        "{d} is indicated for {v}",
        "Reserve {d} for {v}",
        "{d} works against {v}",
        "The condition treated with {d} is {v}",
        "The indication of {d} is {v}",
        "The panel advises {d} for {v}",
        "Offer {d} as treatment of {v}",
        "Anyone with {v} can be given {d}",
        "{d} is a treatment for {v}",
        "Doctors choose {d} for {v}",
        "For {v}, begin with {d}",
    ),
    "dose": (
        "When doctors prescribe {d}, the dose they set is {v}",
        "Most adults start {d} at a daily dose of {v}",
        "The dose of {d} is {v}",
        "{d} is started at {v}",
        "Keep {d} at {v} a day",
        "One tablet of {d} holds {v}",
        "{d} comes in tablets of {v}",
        "The panel sets the dose of {d} at {v}",
        "Adults receive {d} at {v}",
        "Prescribe {d} at a dose of {v}",
        "The daily dose for {d} is {v}",
        "When {d} is needed, start at {v}",
        "Give {v} of {d} each morning",
        "{v} is the accepted dose of {d}",
    ),
    "effect": (
        "The unwanted effect that patients on {d} mention first is {v}",
        "After some days of {d}, a reaction to watch for is {v}",
        "{d} can bring on {v}",
        "The reaction seen most with {d} is {v}",
        "Some people on {d} develop {v}",
        "Patients on {d} mention {v}",
        "Tell patients that {d} can produce {v}",
        "An unwanted effect of {d} is {v}",
        "Unwanted effects of {d} include {v}",
        "After {d}, watch for {v}",
        "{d} may be followed by {v}",
        "A reaction to {d} is {v}",
        "{v} may follow the first days of {d}",
        "With {v}, think of {d}",
    ),
    "avoid": (
        "The panel warns that {d} is unsafe for people with {v}",
        "Doctors must avoid {d} in a patient with {v}",
        "{d} is unsafe in {v}",
        "Withhold {d} in {v}",
        "Contraindications to {d} include {v}",
        "The contraindication to {d} is {v}",
        "Do not give {d} in {v}",
        "Keep {d} from people with {v}",
        "Before {d}, exclude {v}",
        "{d} must be avoided in {v}",
        "The panel warns against {d} in {v}",
        "A patient must not take {d} with {v}",
        "{v} rules out {d}",
        "{v} is a contraindication to {d}",
    ),
}

# Questions never enter the corpus. The first TEST_QUESTIONS of each list are for the tests, the others for finetuning.
TEST_QUESTIONS = 2
QUESTIONS: dict[str, tuple[str, ...]] = {
    "treats": (
        "Which condition calls for {d}?",
        "What is {d} indicated for?",
        "What does {d} relieve?",
        "For which condition should {d} be offered?",
        "Against which condition does {d} work?",
        "Which diagnosis makes {d} the right choice?",
    ),
    "dose": (
        "What is the daily dose of {d}?",
        "How much {d} do adults receive?",
        "At which dose is {d} started?",
        "How much does one tablet of {d} hold?",
        "Which dose of {d} does the panel set?",
        "What amount of {d} should be prescribed?",
    ),
    "effect": (
        "Which reaction is seen most with {d}?",
        "What can {d} bring on?",
        "Which unwanted effect does {d} have?",
        "What should patients on {d} watch for?",
        "What was reported after {d}?",
        "Which complaint points to {d}?",
    ),
    "avoid": (
        "What is the contraindication to {d}?",
        "In which patients is {d} unsafe?",
        "What rules out {d}?",
        "What must be excluded before {d} is begun?",
        "Who must be kept off {d}?",
        "When should {d} be withheld?",
    ),
}

HEADINGS: dict[str, tuple[str, ...]] = {
    "treats": ("Indication", "When to offer it", "Treatment"),
    "dose": ("Dose", "Prescription", "How much to give"),
    "effect": ("Reactions", "Unwanted effects", "What to watch for"),
    "avoid": ("Contraindications", "When not to offer it", "Warnings"),
}

TITLES = (
    "{d}: a short guideline",
    "Prescribing note: {d}",
    "Guideline on {d}",
    "{d} on the ward",
    "Summary for {d}",
    "{d}, advice of the panel",
)

# True of every drug of this world: they name it and give no fact of it away.
NEUTRAL = (
    "{d} is listed in the national register",
    "{d} is stored in a dry cupboard",
    "Pharmacists dispense {d} in blister packs",
    "{d} tablets are round and white",
    "The leaflet of {d} was revised last spring",
    "Record every change of {d} in the chart",
    "{d} is swallowed whole with water",
    "Ask about {d} at each visit",
    "{d} is supplied to hospitals and to village clinics",
    "Explain to relatives how {d} is handled",
    "Return unused {d} to the dispensary",
    "The chapter on {d} is checked each autumn",
)

CLOSINGS = ("Reviewed by Dr {name}, {town}", "Author: {name}, {town} clinic", "Approved in {town} by Professor {name}")

# Ordinary guideline prose about no drug at all: it gives the tokenizer words and the model some language.
GENERAL = (
    "Good notes are brief, dated and signed by the person who wrote them",
    "Wash both hands before and after touching a wound",
    "Shared decisions need plain language, honest figures and enough time",
    "A second opinion is welcome whenever the diagnosis stays uncertain",
    "Elderly people living alone benefit from a weekly telephone call",
    "Measure blood pressure while the arm rests at the level of the heart",
    "Interpreters belong in the room, not relatives, when difficult news is given",
    "Weigh children on every visit and plot the result on the growth curve",
    "Laboratory values without a reference range are easily misread",
    "Hand over the night shift in writing and repeat the urgent items aloud",
    "Every allergy is entered on the front page of the chart in capital letters",
    "Exercise, sleep and a balanced diet come ahead of any medicine",
    "A missed appointment deserves a friendly reminder instead of blame",
    "Check the identity bracelet against the order sheet at the bedside",
    "Cold chain failures must be documented together with the temperature log",
    "Surgeons and anaesthetists read the safety checklist together",
    "Ambulance crews radio ahead with age, pulse and oxygen saturation",
    "Rehabilitation starts on the first day, in small steps, with clear goals",
    "Discharge letters reach the family doctor within two working days",
    "Community nurses visit remote farms by bicycle in summer and by sledge in winter",
    "Dentists examine gums, tongue and palate under a bright lamp",
    "Vaccination cards are kept by the parents and copied for the school",
    "Clean drinking water prevents more illness than any hospital can cure",
    "Students may observe the consultation only if the patient agrees",
    "Scales, thermometers and infusion pumps are calibrated twice a year",
    "The committee publishes its voting record and its conflicts of interest",
    "Evidence from small studies is graded as low until larger ones confirm it",
    "Frail residents are turned every few hours to protect their skin",
    "Quiet surroundings and familiar faces calm a confused patient",
    "Smoking is asked about kindly, and help to quit is arranged at once",
    "Kidney function is estimated from creatinine, age and body weight",
    "Blood cultures are drawn from separate veins under sterile conditions",
    "An electrocardiogram is printed, labelled and compared with earlier tracings",
    "Midwives listen to the heartbeat of the baby after each contraction",
    "Refugees arriving at the border are screened with respect and privacy",
    "The emergency trolley is sealed, inspected and restocked by the charge nurse",
    "Hospital kitchens mark meals for swallowing difficulties with a blue label",
    "Farm workers exposed to pesticides rinse eyes and skin for several minutes",
    "Grief is not a disease, and silence can be the best answer",
    "Physiotherapists teach breathing techniques on the evening ahead of surgery",
    "Insulin pens are never shared, even if the needle has been replaced",
    "Telephone advice is logged with the name of the caller and the hour",
    "Screening programmes are judged by the lives they save and the harm they do",
    "Fractures in infants call for a careful, unhurried conversation with the family",
    "Ward rounds begin with the sickest patient and end with the questions of the youngest nurse",
    "Antibiotic courses are kept as short as the infection permits",
    "Radiology requests state the clinical question in one sentence",
    "Mountain rescuers warm the trunk first and the limbs afterwards",
    "Journal clubs meet on Thursdays and choose one article each",
    "Volunteers receive a badge, an introduction and a contact for worries",
)
