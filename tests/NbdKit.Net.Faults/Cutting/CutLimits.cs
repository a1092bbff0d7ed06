using NbdKit.Faults.Hostile;
using NbdKit.Faults.Mutation;

namespace NbdKit.Faults.Cutting;

/// <summary>The limits of real time that a peer which stalls runs into.</summary>
internal static class CutLimits
{
    /// <summary>What either side has for a handshake, a message or a request where its peer stalls.</summary>
    public static readonly TimeSpan Short = TimeSpan.FromSeconds(2);

    /// <summary>The same where nobody stalls, so that a machine in use is no reason for an end.</summary>
    public static readonly TimeSpan Long = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan Tolerance = TimeSpan.FromMilliseconds(500);

    // Timers and this clock do not agree to the millisecond.
    private static readonly TimeSpan Resolution = TimeSpan.FromMilliseconds(20);

    /// <summary>Fails unless something ended at its deadline: by half a second, and more where the machine is late.</summary>
    /// <param name="whole">Since something that was before the time ran.</param>
    /// <param name="silent">Since the peer stalled.</param>
    public static void Check(TimeSpan whole, TimeSpan silent)
        => MutationException.Require(
            whole >= Short - Resolution && silent <= Short + Tolerance + MachineLag.Longest,
            $"the end came {whole.TotalSeconds:F2} s after the beginning and {silent.TotalSeconds:F2} s after the last byte");
}
