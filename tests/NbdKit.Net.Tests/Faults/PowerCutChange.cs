namespace NbdKit.Tests.Faults;

/// <summary>A change of the disk in one run of a history: when it was asked for, acknowledged and made durable.</summary>
internal sealed class PowerCutChange(PowerCutStep? step, object context, long issued)
{
    /// <summary>Null for what was there at first.</summary>
    public PowerCutStep? Step { get; } = step;

    public object Context { get; } = context;

    public long Issued { get; } = issued;

    public long Acknowledged { get; set; } = long.MaxValue;

    /// <summary>When a flush or FUA was acknowledged that covers it.</summary>
    public long Durable { get; set; } = long.MaxValue;

    public bool IsTrim => Step?.Op == PowerCutOp.Trim;

    /// <summary>What its sectors are filled with.</summary>
    public ushort Value => Step is null ? PowerCutOracle.Initial : Step.Op == PowerCutOp.Write ? Step.Id : (ushort)0;
}
