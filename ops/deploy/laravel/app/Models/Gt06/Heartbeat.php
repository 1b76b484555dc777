<?php

namespace App\Models\Gt06;

/** A sign of life, with what the device says of itself. */
class Heartbeat extends Model
{
    use HasExtras, WithoutId;

    const KEY = ['device_id', 'received_at', 'spool_position'];

    protected $table = 'heartbeats';

    protected $casts = [
        'received_at' => 'datetime',
        'ignition' => 'boolean',
        'charging' => 'boolean',
        'blocked' => 'boolean',
    ];

    public function device()
    {
        return $this->belongsTo(Device::class);
    }
}
