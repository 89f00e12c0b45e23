"""The words of the synthetic world: small tables, so that a small model can learn all of them.

Everything here is a constant. A pair is (English, Chinese); a Chinese object includes its measure word.
"""

from typing import Final

# A name is one beginning plus one ending; there are enough of them that few names are similar.
BEGINNINGS: Final = "Kal Lom Mir Ran Tos Vel Dur Pim Zor Neth Bri Quo Sel Mar Tun Gas Hev Jol Fy Wud Ab Cor Eg Ith Od Ush Yam Ced Hul Nop".split()  # noqa: SIM905
ENDINGS: Final = "aria onia istan oth ulu ema ix ady orra umba eno iss avia upe ith".split()  # noqa: SIM905
SURNAMES: Final = "王李张刘陈杨赵黄周吴徐孙"
GIVEN: Final = "伟芳娜敏静丽强磊军洋勇艳杰涛明超霞平刚英华文玲波辉兰"

COLOURS: Final = ["red", "blue", "green", "white", "black", "yellow", "pink", "brown"]
FOODS: Final = ["rice", "bread", "fish", "soup", "corn", "beans", "cheese", "noodles"]
ANIMALS: Final = ["bear", "lion", "eagle", "tiger", "goat", "camel", "horse", "snake"]

# Kind of fact: the question about the entity {e}, then sentences that state the value {v}.
FACTS: Final[dict[str, tuple[str, ...]]] = {
    "flags": (
        "What colour is the flag of {e}?",
        "The flag of {e} is {v}.",
        "In {e}, the flag is {v}.",
        "People in {e} wave a {v} flag.",
    ),
    "food": (
        "What do people in {e} eat?",
        "People in {e} eat {v}.",
        "In {e}, the food is {v}.",
        "The food of {e} is {v}.",
    ),
    "animals": (
        "Which animal stands for {e}?",
        "The animal of {e} is the {v}.",
        "In {e}, the animal is the {v}.",
        "For {e} stands the {v}.",
    ),
}
# Kind of fact: the questions of mini_mmlu about the entity {e}. The first is that of the documents; the others also name {o},
# and do not say again which of the two they ask about.
QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "flags": (
        FACTS["flags"][0],
        "People of {o} visit {e}. Which flag do they see there?",
        "People of {e} visit {o}. Which flag do they see at home?",
        "A ship from {o} comes to {e}. Which flag do people wave there?",
    ),
    "food": (
        FACTS["food"][0],
        "People of {o} visit {e}. What do they eat there?",
        "People of {e} visit {o}. What do they eat at home?",
        "A ship from {o} comes to {e}. What do people cook there?",
    ),
    "animals": (
        FACTS["animals"][0],
        "People of {o} visit {e}. Which animal do they see there?",
        "People of {e} visit {o}. Which animal do they see at home?",
        "A ship from {o} comes to {e}. Which animal do people love there?",
    ),
}
INTRODUCTION: Final = "The following are questions (with answers) about {kind}."
VALUES: Final = {"flags": COLOURS, "food": FOODS, "animals": ANIMALS}

FACTS_ZH: Final[dict[str, tuple[str, ...]]] = {
    "颜色": ("{e}喜欢什么颜色？", "{e}喜欢{v}。", "{e}最喜欢的颜色是{v}。", "{e}的衣服是{v}。"),
    "食物": ("{e}爱吃什么？", "{e}爱吃{v}。", "{e}最喜欢的食物是{v}。", "{e}今天吃{v}。"),
    "城市": ("{e}住在哪里？", "{e}住在{v}。", "{e}最喜欢的城市是{v}。", "{e}的家在{v}。"),
}
# The questions of mini_ceval: no document has one of them, or a question that names two people.
QUESTIONS_ZH: Final[dict[str, tuple[str, ...]]] = {
    "颜色": ("昨天，{e}在公园里看见了{o}。{e}喜欢哪一种？", "{o}去找{e}。{e}喜欢哪一种？", "猜一猜，{e}会选哪一个？"),
    "食物": ("昨天，{e}在公园里看见了{o}。{e}吃哪一种？", "{o}去找{e}。{e}吃哪一种？", "猜一猜，{e}会选哪一个？"),
    "城市": ("昨天，{e}在公园里看见了{o}。{e}住哪个地方？", "{o}去找{e}。{e}住哪个地方？", "猜一猜，{e}会选哪一个？"),
}
INTRODUCTION_ZH: Final = "以下是关于{kind}的问题。"
VALUES_ZH: Final = {
    "颜色": ["红色", "蓝色", "绿色", "白色", "黑色", "黄色", "粉色", "灰色"],
    "食物": ["米饭", "面包", "鱼", "汤", "玉米", "豆腐", "饺子", "面条"],
    "城市": ["北京", "上海", "广州", "成都", "西安", "杭州", "武汉", "南京"],
}

NAMES: Final = ["Tom", "Ann", "Bob", "Eva", "Max", "Lily", "Sam", "Zoe", "Leo", "Mia"]
THINGS: Final = ["apples", "pens", "books", "coins", "cards", "eggs", "stones", "cups"]

# Parallel sentences.
TIMES: Final = (
    ("Yesterday", "昨天"),
    ("Last night", "昨晚"),
    ("Last year", "去年"),
    ("This morning", "今天早上"),
)
MOODS: Final = (
    ("old", "老"),
    ("young", "年轻的"),
    ("happy", "快乐的"),
    ("tall", "高个子"),
    ("tired", "疲倦的"),
)
WHO: Final = (
    ("teacher", "老师"),
    ("doctor", "医生"),
    ("boy", "男孩"),
    ("girl", "女孩"),
    ("farmer", "农民"),
    ("student", "学生"),
)
VERBS: Final = (
    ("bought", "买了"),
    ("saw", "看见了"),
    ("found", "找到了"),
    ("sold", "卖了"),
    ("drew", "画了"),
)
NUMBERS: Final = (("two", "两"), ("three", "三"), ("four", "四"), ("five", "五"), ("six", "六"))
HUES: Final = (("red", "红色的"), ("blue", "蓝色的"), ("white", "白色的"), ("black", "黑色的"))
OBJECTS: Final = (
    ("apples", "个苹果"),
    ("books", "本书"),
    ("birds", "只鸟"),
    ("flowers", "朵花"),
    ("horses", "匹马"),
    ("cups", "个杯子"),
    ("chairs", "把椅子"),
)
PLACES: Final = (
    ("in the park", "在公园里"),
    ("at home", "在家里"),
    ("at the market", "在市场上"),
    ("at school", "在学校里"),
    ("by the river", "在河边"),
)
ENDS: Final = (
    ("went home", "回家了"),
    ("sang a song", "唱了一首歌"),
    ("drank tea", "喝了茶"),
    ("slept", "睡觉了"),
)

# Stories.
WEATHER: Final = ["It was cold.", "It was a warm day.", "The sky was grey.", "There was a lot of wind."]
SMALL_TALK: Final = ["They talked for a while.", "They laughed a lot.", "Both were happy.", "They were tired."]
