"""Names, years, schools and majors of the student records."""

YEARS = ("Freshman", "Sophomore", "Junior", "Senior")
MAJORS = {
    "School of Arts and Humanities": (
        "Art History; Criticism & Conservation",
        "Classics & Classical Literatures",
        "Comparative Literature",
        "Drama & Theatre Arts",
        "Economics",
        "Film Cinema Studies",
        "History",
        "Psychology",
        "Religious Studies",
        "Spanish Language & Literature",
    ),
    "School of Engineering": (
        "Biomedical Engineering",
        "Civil Engineering",
        "Electrical & Electronics Engineering",
        "Engineering & Industrial Management",
        "Environmental engineering",
        "Space Engineering",
    ),
    "School of Computer Information and Data Sciences": ("Computer Science", "Cybersecurity"),
}
FIRST = tuple(
    "Aaron Abigail Adam Adrian Agnes Alan Albert Alice Amanda Amy Andrea Andrew Angela Anita Anna Anthony Arthur "
    "Barbara Benjamin Bernard Bethany Brandon Brenda Brian Bruce Calvin Camille Carl Carmen Caroline Cecilia "
    "Charles Charlotte Cheryl Chloe Christian Claire Clara Colin Connor Craig Curtis Cynthia Dale Damian Darren "
    "David Dean Deborah Denise Dennis Diana Dominic Donald Donna Douglas Dylan Edith Edward Eileen Elaine Elias "
    "Elizabeth Ellen Emily Eric Erica Ernest Esther Eugene Evelyn Felix Fiona Frances Francis Gabriel Gail Gary "
    "Gavin George Gerald Gina Glenn Gloria Gordon Grace Graham Gregory Hannah Harold Heather Hector Heidi Helen "
    "Henry Holly Howard Hugo Ian Ingrid Irene Iris Isaac Ivan Jacob Jane Janet Jared Jason Jasmine Jean Jeremy "
    "Jerome Jessica Joan Joel Jonathan Jorge Joseph Joyce Judith Julian Karen Karl Katherine Keith Kenneth Kevin "
    "Kimberly Kurt Laura Lauren Lawrence Leah Leonard Leslie Linda Lisa Lloyd Logan Lorraine Louis Lucy Luis Lydia "
    "Malcolm Marcus Margaret Maria Marion Martha Martin Marvin Maureen Maurice Megan Melanie Melissa Michael "
    "Michelle Miranda Molly Monica Morgan Nancy Naomi Natalie Nathan Neil Nicholas Nicole Nina Nora Norman Olivia "
    "Oscar Owen Pamela Patricia Patrick Paul Paula Pauline Peter Philip Phoebe Rachel Ralph Raymond Rebecca Regina "
    "Renee Ricardo Richard Rita Robert Robin Rodney Roger Ronald Rosa Ross Roy Russell Ruth Samuel Sara Scott Sean "
    "Sergio Sharon Shaun Sheila Simon Sonia Spencer Stanley Stella Stephanie Stephen Steven Stuart Susan Sylvia "
    "Tamara Tanya Teresa Theodore Thomas Tiffany Timothy Tina Todd Tracy Trevor Valerie Vanessa Vera Vernon "
    "Veronica Victor Victoria Vincent Violet Virginia Vivian Wanda Warren Wayne Wendy William Yolanda Yvonne".split()
)
LAST = tuple(
    "Abbott Acosta Adams Aguilar Allen Alvarez Anderson Andrews Armstrong Arnold Atkins Austin Bailey Baker Baldwin "
    "Barker Barnes Barrett Barton Bates Beck Becker Benson Berg Bishop Blair Blake Bond Booth Bowen Bowman Boyd "
    "Bradley Brady Brooks Brown Bryant Burgess Burke Burton Bush Byrd Cabrera Calderon Caldwell Campbell Cannon "
    "Carlson Carpenter Carr Carroll Carter Casey Castillo Chambers Chan Chandler Chapman Chavez Chen Christensen "
    "Church Clark Clarke Clayton Clements Cole Coleman Collins Conner Contreras Conway Cooke Cooper Cortez Craig "
    "Crawford Cruz Cummings Cunningham Curry Dalton Daniels Davenport Davidson Dawson Delgado Dennis Diaz Dixon "
    "Dominguez Donovan Douglas Doyle Drake Duncan Dunn Edwards Elliott Ellis Erickson Espinoza Evans Farmer Farrell "
    "Ferguson Fernandez Fields Figueroa Fischer Fisher Fitzgerald Fleming Fletcher Flores Flynn Ford Foster Fowler "
    "Fox Francis Franklin Freeman Frost Fuller Gallagher Garcia Gardner Garner Garrett Gibson Gilbert Glover Gomez "
    "Gonzalez Goodman Gordon Graham Grant Gray Green Griffin Gross Guerrero Gutierrez Hall Hamilton Hammond Hansen "
    "Hardin Harmon Harper Harrington Hart Harvey Hayes Henderson Hernandez Herrera Hicks Higgins Hodges Hoffman "
    "Holland Holmes Hopkins Howell Hubbard Hudson Huff Hughes Hunt Hunter Ingram Jackson Jacobs James Jenkins "
    "Jensen Jimenez Johnston Jones Jordan Joseph Kelley Kemp Kennedy Khan Kim King Klein Knight Lam Lambert Lane "
    "Larson Lawson Leonard Lester Lewis Lin Lindsey Little Long Lopez Lowe Lucas Lynch Lyons Mack Maldonado Mann "
    "Manning Marshall Mason Massey Mathis Maxwell May Mccarthy Mccoy Mcdonald Mckinney Medina Mejia Mendoza Meyer "
    "Middleton Miles Miller Mitchell Molina Monroe Montgomery Moody Moore Morales Moreno Morrow Moses Mullins Munoz "
    "Murphy Myers Nash Navarro Nelson Newton Nguyen Nichols Nolan Norris Norton Nunez Oconnor Oliver Olson Ortega "
    "Osborne Owens Padilla Page Palmer Park Parks Parsons Patel Patterson Payne Pena Perkins Perry Peters Phelps "
    "Pierce Pittman Pope Porter Powell Powers Pratt Quinn Ramirez Ramos Randall Reed Reese Reyes Reynolds Rhodes "
    "Rice Richards Riley Rivas Rivera Robbins Roberts Robertson Rodriguez Rogers Romero Rosales Rose Rowe Ruiz "
    "Russo Salazar Sanchez Sanders Santiago Savage Sawyer Schmidt Schneider Schultz Sellers Serrano Shaffer Shah "
    "Shannon Sharp Shelton Shepherd Sherman Shields Silva Simmons Simpson Sims Singleton Skinner Sloan Snyder Solis "
    "Soto Spence Stafford Stein Stevens Stokes Stone Strickland Suarez Sullivan Summers Swanson Sweeney Tanner Tate "
    "Terry Todd Torres Tran Trujillo Turner Tyler Underwood Valdez Valentine Vance Vargas Vasquez Vaughn Velez "
    "Villa Wade Wagner Walker Wallace Walsh Walters Ward Ware Warner Watkins Watts Weaver Webb Weber Welch Wells "
    "West Whitaker Wiley Wilkerson Williams Willis Winters Wolfe Wong Woodard Wright Wu Wyatt Yates Yoder York "
    "Young Zamora Zimmerman Zuniga".split()
)
TITLES = ("", "", "", "", "Mr. ", "Ms. ", "Mrs. ", "Dr. ")
SUFFIXES = ("", "", "", "", "", " MD", " DDS", " PhD", " DVM", " Jr.")
