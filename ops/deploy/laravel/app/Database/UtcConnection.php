<?php

namespace App\Database;

use DateTimeImmutable;
use DateTimeInterface;
use DateTimeZone;
use Illuminate\Database\MySqlConnection;

/**
 * A connection to a schema whose times are UTC. Laravel binds a Carbon as the
 * clock of its own zone shows it: where('fix_time', '>', now()) of an
 * application in Asia/Kolkata would ask five and a half hours ahead.
 */
class UtcConnection extends MySqlConnection
{
    public function prepareBindings(array $bindings)
    {
        return parent::prepareBindings(array_map(function ($value) {
            return $value instanceof DateTimeInterface
                ? DateTimeImmutable::createFromInterface($value)->setTimezone(new DateTimeZone('UTC'))
                : $value;
        }, $bindings));
    }
}
