-- The tables of the demo. carrier, origin and dest have foreign keys. tailnum has none, because
-- many flights use a plane that is not in planes.csv.

DROP SCHEMA IF EXISTS flights_demo CASCADE;
CREATE SCHEMA flights_demo;

CREATE TABLE flights_demo.airlines (
    carrier text PRIMARY KEY,
    name    text NOT NULL
);

CREATE TABLE flights_demo.airports (
    faa   text PRIMARY KEY,
    name  text NOT NULL,
    lat   double precision NOT NULL,
    lon   double precision NOT NULL,
    alt   integer NOT NULL,
    tz    integer NOT NULL,
    dst   text NOT NULL,
    tzone text
);

CREATE TABLE flights_demo.planes (
    tailnum      text PRIMARY KEY,
    year         integer,
    type         text NOT NULL,
    manufacturer text NOT NULL,
    model        text NOT NULL,
    engines      integer NOT NULL,
    seats        integer NOT NULL,
    speed        integer,
    engine       text NOT NULL
);

CREATE TABLE flights_demo.flights (
    year           integer NOT NULL,
    month          integer NOT NULL,
    day            integer NOT NULL,
    dep_time       integer,  -- local time as HHMM; NULL for a cancelled flight
    sched_dep_time integer NOT NULL,
    dep_delay      integer,
    arr_time       integer,
    sched_arr_time integer NOT NULL,
    arr_delay      integer,
    carrier        text NOT NULL REFERENCES flights_demo.airlines,
    flight         integer NOT NULL,
    tailnum        text,
    origin         text NOT NULL REFERENCES flights_demo.airports,
    dest           text NOT NULL REFERENCES flights_demo.airports,
    air_time       integer,
    distance       integer NOT NULL,
    hour           integer NOT NULL,
    minute         integer NOT NULL,
    time_hour      timestamptz NOT NULL,
    PRIMARY KEY (time_hour, carrier, flight, origin)
);
