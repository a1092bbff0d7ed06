using NbdKit.Benchmarks.Load;

namespace NbdKit.Benchmarks.Compare;

/// <summary>The same work for several servers of the same disk.</summary>
/// <param name="Name">What it is chosen by.</param>
/// <param name="Description">What the servers serve.</param>
/// <param name="Contestants">The servers; ours is the first.</param>
/// <param name="Works">What is done, in this order.</param>
internal sealed record Scenario(
    string Name, string Description, IReadOnlyList<Contestant> Contestants, IReadOnlyList<Work> Works)
{
    /// <summary>Whether the disk is written whole before anything is measured, so that all of its memory is there.</summary>
    public bool Fills { get; init; }

    /// <summary>The columns apart from ours.</summary>
    public IEnumerable<string> Peers => Contestants.Skip(1).Select(contestant => contestant.Column).Distinct();

    /// <summary>What is left of it if only some names are wanted, or null if that is nothing.</summary>
    public Scenario? Restrict(IReadOnlyList<string> only)
    {
        if (only.Count == 0 || only.Contains(Name))
        {
            return this;
        }
        Scenario restricted = this with { Works = [.. Works.Where(work => only.Contains(work.Name))] };
        return restricted.Works.Count > 0 ? restricted : null;
    }
}
