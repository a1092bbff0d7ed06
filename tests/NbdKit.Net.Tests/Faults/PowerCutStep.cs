namespace NbdKit.Tests.Faults;

/// <summary>One request of a history. Part of the history, not of a run.</summary>
/// <param name="Id">What a write fills its sectors with, and what decides where the cuts are: more than 1.</param>
/// <param name="Op">What it does.</param>
/// <param name="Context">The context that it goes through.</param>
/// <param name="Sector">First sector.</param>
/// <param name="Count">Number of sectors.</param>
/// <param name="Flags">Its flags, as far as the stack offers them.</param>
/// <param name="Hold">
/// For how many steps its first change of a disk is held up; 0 if each step before it and itself is waited for.
/// </param>
/// <param name="IsGivenUp">Whether it is cancelled then.</param>
internal sealed record PowerCutStep(
    ushort Id, PowerCutOp Op, int Context, int Sector, int Count, RequestFlags Flags, int Hold, bool IsGivenUp)
{
    public bool IsChange => Op is PowerCutOp.Write or PowerCutOp.Zero or PowerCutOp.Trim;

    /// <summary>Draws a history.</summary>
    public static PowerCutStep[] Draw(Random random, int count, int contexts, int sectors, bool concurrent)
    {
        var steps = new PowerCutStep[count];
        // Few sectors are written often in half of the histories.
        int used = random.Next(2) == 0 ? sectors : Math.Max(8, sectors / 8);
        int first = random.Next(sectors - used + 1);
        for (int i = 0; i < count; i++)
        {
            PowerCutOp op = random.Next(100) switch
            {
                < 55 => PowerCutOp.Write,
                < 65 => PowerCutOp.Zero,
                < 72 => PowerCutOp.Trim,
                < 90 => PowerCutOp.Flush,
                < 94 => PowerCutOp.Read,
                < 97 => PowerCutOp.Prefetch,
                _ => PowerCutOp.Reopen,
            };
            int length = Math.Min(used, random.Next(3) switch { 0 => 1, 1 => random.Next(1, 9), _ => random.Next(1, 33) });
            RequestFlags flags = op == PowerCutOp.Zero && random.Next(2) == 0 ? RequestFlags.MayTrim : RequestFlags.None;
            flags |= random.Next(5) == 0 ? RequestFlags.Fua : RequestFlags.None;
            steps[i] = new PowerCutStep(
                (ushort)(i + 2),
                op,
                random.Next(contexts),
                first + random.Next(used - length + 1),
                length,
                flags,
                concurrent && random.Next(8) == 0 ? random.Next(1, 5) : 0,
                random.Next(4) == 0);
        }
        return steps;
    }

    public override string ToString()
    {
        string range = Op is PowerCutOp.Flush or PowerCutOp.Reopen ? "" : $" {Sector}+{Count}";
        string flags = IsChange && Flags != RequestFlags.None ? $" {Flags}" : "";
        return $"{Id,4}: {Op} by {Context}{range}{flags}{(Hold > 0 ? $", held for {Hold}" : "")}"
            + (Hold > 0 && IsGivenUp ? ", then given up" : "");
    }
}
