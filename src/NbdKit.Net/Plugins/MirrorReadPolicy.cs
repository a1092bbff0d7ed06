namespace NbdKit.Plugins;

/// <summary>Which member of a <see cref="MirrorPlugin"/> a read goes to.</summary>
public enum MirrorReadPolicy
{
    /// <summary>Each in turn, so that parallel reads use all of them.</summary>
    RoundRobin,

    /// <summary>The first that is in sync, in the order of the members: for a fast one with slow ones behind it.</summary>
    First,
}
