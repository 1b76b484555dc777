<?php

namespace App\Models\Gt06;

/** An alarm, with its place where it has one. */
class Alarm extends Model
{
    use WithoutId;

    const KEY = ['device_id', 'fix_time', 'alarm', 'fix_hash'];

    protected $table = 'alarms';

    protected $casts = ['fix_time' => 'datetime', 'received_at' => 'datetime', 'fix_hash' => 'string'];

    public function device()
    {
        return $this->belongsTo(Device::class);
    }
}
