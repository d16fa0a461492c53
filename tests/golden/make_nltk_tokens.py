"""Made bm25_nltk_tokens.json: what NLTK's word_tokenize makes of awkward strings.

    pip install nltk==3.10.4 && python make_nltk_tokens.py

One row of texts has `|` between them. Each entry is [text, tokens] of `word_tokenize(text, preserve_line=True)`, which needs no trained model: the text is taken for one sentence.
"""

import json
import random
import re

from nltk.tokenize import word_tokenize

ROWS = r"""
Don't stop, it's John's dog!|I can't; you won't; they'd've gone|cannot CANNOT Cannot cannots scannot can't've|gonna gotta wanna lemme gimme more'n d'ye
I wanna|I wanna.|wanna go|Wanna\tgo|gonna.|gonna'tis|'twas'twas|²cannot|(²'s)|gonna½|(gimme)|He gotta'd|more'n enough|D'ye see?|d'yes|'Tis the season, 'twas the night|'tis|"'tis"|it 'tis
He said "hello" and left...|"Hello," she said. "Bye."|"|""|" "|'|''|'''|''''|``|`|```|`a'|``a''|''a''|('')|("")|[""a""]|{"a":"b"}|<"x">
a "b" c|a"b"c|("a")|( "a" )|\n"a"|x\n"a"\ny|'a'|'a b'|('a')|'em|rock 'n' roll|rock'n'roll|'n|'s|'ll be|'d|'m|'re|'ve|'t|n't|N'T|DON'T|Don'T
dogs'|dogs' tails|James's|the '90s|'90s|O'Brien's|l'intelligence|d'Artagnan|aujourd'hui|y'all'd've|who's'|'s's|a's b's|he'S|I'M|I'm|i'M|we'LL|we'Ll|we'll
“Quote” ‘single’ «guillemets» „low“|don’t|it’s ‘tis’|a“b”c|”|’s|dogs’ tails.”|She said: “Go.”|He left.»|End.'|End."|End.)|End.]|End.}|End.>|End.' "|End. )
U.S.A.|U.S.|Mr. Smith went.|e.g. this|etc.|etc.)|a.b.c|1.|1.5|1.5.|.5|..|...|....|a..b|a...|a....|wait... what?|... and|a. . .|. . .|.|.a|a.|a .| .|a.\n|a. \n |a.\t|a.b. c.
a,b|a, b|1,2|1,234.56|a,1|1,a|,|,,|,,,|a,|a:|a:b|a: b|1:2|10:30|:|::|:::|:,|,:|a::b|a,\n|a:\n|a,,1|,1|:1|::1|std::vec|http://a.b/c?d=e&f=g#h|https://example.com:8080/|mailto:a@b.co
$1,234.56 (50%).|$5|5$|£5|€5|#tag|@user|a@b.com|R&D|AT&T's|50%|100%!|C++|C#|F#.|a/b|a\b|a_b|a*b|**bold**|*|a;b|;|a?b|a!b|?!|!?!|what?!?|a|b
--|---|----|a--b|a---b|a -- b|a – b|a—b|a‒b|a―b|a-b|-1|e-mail|state-of-the-art|1950-1960|1950–1960|--flag=value|->|=>|<=|<a href="b">c</a>|&lt;|a<b>c
(a)|[a]|{a}|<a>|((a))|()|(a.)|(a).|[1,2]|[1, 2]|f(x)|f(x):|a(b)c.|¿Dónde?|¡Hola!|¿Qué? ¡No!|漢字。かな|全角，文字|한국어.|ελληνικά;|русский «текст».|عربي، نص؟
a\tb|a\nb|a\r\nb|a\u00a0b|a\u3000b|a\u2028b|a\u200bb|a\x1cb|a\x85b| | a|a | a |  a  b  ||\n|\t'a|'\ta|a'\tb|a' b' c|a' ' b|'a ' b|a ''b'' c|a '' b|x'' y|x'y'z|x' y'z|(x' y)
Dr. O'Neil's "test" cost $3.50, didn't it?|The "so-called 'expert'" isn't.|He's 6'2" tall.|5'10"|12" pipe|3'|"It's," he said, "'quoted'."|Ph.D.s aren't M.D.s'.|'Don't'|can't.|cannot.|CAN'T!|it's.|it's...|p<0.05|p < 0.05, n=12.|IL-2/IL-4|α-synuclein|TNF-α's|5-HT(2A)|Na+/K+-ATPase|CO2.|x², y³|½:½|1:½|①,①|٣,٤|a,٣
"""


def unescape(text):
    return re.sub(r"\\(?:[ntr]|u[0-9a-f]{4}|x[0-9a-f]{2})", lambda found: found[0].encode().decode("unicode_escape"), text)


texts = list(dict.fromkeys(unescape(text) for row in ROWS.strip().splitlines() for text in row.split("|")))

# Rules meet in ways that nobody thinks of.
pieces = list("""aS1 .,:;'"`()[]{}<>?!*&-”’“‘»«\n""") + ["n't", "'s", "'ll", " ", " ", "''", "``", "--", "...", "can", "not", "wanna", "\t", "d'ye", "é", "more'n"]
random.seed(1)
for _ in range(160):
    texts.append("".join(random.choice(pieces) for _ in range(random.randint(2, 14))))

json.dump([[text, word_tokenize(text, preserve_line=True)] for text in texts], open("bm25_nltk_tokens.json", "w"), ensure_ascii=False, indent=0)
