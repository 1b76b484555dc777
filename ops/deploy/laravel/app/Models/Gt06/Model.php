<?php

namespace App\Models\Gt06;

use Illuminate\Database\Eloquent\Model as Eloquent;
use Illuminate\Support\Facades\Date;
use LogicException;

/**
 * A table of gt06. Its times are UTC in the database and in the application's
 * zone (app.timezone) here. The tables belong to gt06d: they are read, never
 * written or migrated, from Laravel.
 */
abstract class Model extends Eloquent
{
    protected $connection = 'gt06';

    public $timestamps = false;

    protected static function booted()
    {
        $refuse = function () {
            throw new LogicException(static::class.' is written by gt06d alone; names, models and permissions: gt06ctl devices --help');
        };
        static::saving($refuse);
        static::deleting($refuse);
    }

    /** A text of the database is UTC; Eloquent would take it for local time. */
    protected function asDateTime($value)
    {
        $time = is_string($value) ? Date::parse($value, 'UTC') : parent::asDateTime($value);

        return $time->setTimezone(config('app.timezone'));
    }
}
