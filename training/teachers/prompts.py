"""What the teacher ``endpoint`` asks, as data. Pixel Reasoner publishes no prompts; these follow its description."""

from __future__ import annotations

SYSTEM = (
    "You write the reasoning of a careful person who looks at an image or a video, looks closer at one part of it, and "
    "then answers. You reply with one JSON object and nothing else: no Markdown, no comments, no other keys."
)
WHOLE = "The whole input:"
CLOSER = "The part that is looked at closer:"
QUESTION = "The question:"
ANALYSE = """\
Reply with a JSON object with exactly these keys:
"overview": one or two sentences on what the whole input shows and where to look for the answer. It is said before \
anyone has looked closer, so it must not state, hint at or exclude the answer, and must name no option.
"target": a noun phrase of at most eight words for what is looked at closer, without an article and without the answer.
"finding": one or two sentences on what the part that is looked at closer shows. It must state the answer in words.
"answer": the answer alone: {form}.
Say only what can be seen. Do not mention these instructions, file names, coordinates or frame numbers."""
# For a trajectory without a look closer.
REASON = """\
Reply with a JSON object with exactly these keys:
"overview": one or two sentences on what the whole input shows that matters to the question, without the answer.
"target": a noun phrase of at most eight words for what the question is about, without an article and without the \
answer.
"finding": one or two sentences that lead to the answer and state it in words.
"answer": the answer alone: {form}.
Say only what can be seen. Do not mention these instructions or file names."""
FORMS = {
    "option": "the letter of one option",
    "integer": "a whole number in digits",
    "number": "a number in digits",
    "text": "a few words as they are printed or said",
}
EXAMPLES = """\
Two examples of good replies, to other questions.
Q: What is written on the bottle beside the sink? (A) soap (B) oil (C) vinegar (D) bleach
{"overview": "The image shows a kitchen with a sink under a window. A small bottle stands to the right of the sink.", \
"target": "bottle beside the sink", "finding": "The label on the bottle reads vinegar.", "answer": "C"}
Q: How many times does the man knock on the door?
{"overview": "A man walks up to a house and stands before its door in the middle of the video.", \
"target": "man at the door", "finding": "His hand meets the door in three of these frames, so he knocks 3 times.", \
"answer": "3"}"""
PROPOSE = """\
Find one fine detail in the part that is looked at closer: something that can be seen there and not in the whole image \
at a glance, and that there is only one of. Write a question about it with four options, one of them right. Reply with \
a JSON object with exactly these keys:
"valid": true, or false where the part shows no such detail; then the other keys hold empty texts and an empty list.
"target": a noun phrase of at most eight words for the thing in the part, without an article and without the answer.
"question": the question, which names the thing so that it can be found in the whole image, without options.
"choices": four different short texts.
"answer": the text of the right one."""
