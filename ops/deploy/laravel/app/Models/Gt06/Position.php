<?php

namespace App\Models\Gt06;

/**
 * A fix of a device. The table is partitioned by day of fix_time: a query that
 * bounds fix_time reads those days only.
 */
class Position extends Fix
{
    use WithoutId;

    const KEY = ['device_id', 'fix_time', 'kind', 'fix_hash'];

    protected $table = 'positions';

    /** Fixes of a time with a place, in the order they were driven. */
    public function scopeTrack($query, $from, $to)
    {
        return $query->whereBetween('fix_time', [$from, $to])->where('valid', true)->orderBy('fix_time')->orderBy('received_at');
    }
}
